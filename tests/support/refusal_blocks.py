"""The parts of docs/operations.md that the table of refusals is the source of."""

from __future__ import annotations

from gatewayd.protocol.iothub.refusals import TABLE, Refusal, causes


def by_cause(code: int) -> str:
    """One runbook for each cause of a code: how it shows, what gatewayd does, what you do."""
    parts = []
    for row in causes(code):
        parts += [
            f"### {row.code} {row.cause}",
            "",
            f"- **The hub's log says** {_plain(row.hub_log)}.",
            f"- **On MQTT** {_plain(row.mqtt)}.",
            f"- **gatewayd** {_asks(row)}.",
            f"- **You:** {_plain(row.remedy)}",
            "",
        ]
    return "\n".join(parts).rstrip() + "\n"


def all_codes() -> str:
    """Every row of the table."""
    rows = ["| code | name | cause | gatewayd | you |", "|---|---|---|---|---|"]
    rows += [
        f"| {row.code} | {row.name} | `{row.cause}` | {_asks(row)} | {_plain(row.remedy)} |"
        for row in sorted(TABLE, key=lambda one: one.code)
    ]
    return "\n".join(rows) + "\n"


def _asks(row: Refusal) -> str:
    first, then = _acts(row.ask.value), _acts(row.then.value)
    words = first if row.then is row.ask else f"{first}; then {then}"
    return f"{words} (our own doing, not counted as a fault)" if row.planned else words


_THIRD_PERSON = {
    "wait and retry, paced": "waits and retries, paced",
    "sign a new token and reconnect, paced": "signs a new token and reconnects, paced",
    "try the other key": "tries the other key",
    "park the device and probe slowly": "parks the device and probes slowly",
    "stop; nothing retries by itself": "stops; nothing retries by itself",
}


def _acts(words: str) -> str:
    return _THIRD_PERSON[words]


def _plain(text: str) -> str:
    """As Markdown shows it word for word: * stands for what varies and must not make the text italic."""
    return text.replace("*", "\\*").replace("|", "\\|").replace("<", "&lt;")
