"""The reference of the configuration, made from the models: docs/configuration.md and docs/gatewayd.example.toml.

    python -m gatewayd.daemon.config_reference docs

writes both into a folder; a test compares what is there with what would be written. `--schema` prints the JSON Schema
instead, for editors that check TOML while one types.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from gatewayd.daemon.config import Applies, Config, Setting, sections, settings
from gatewayd.daemon.config_values import CREDENTIAL_PREFIX
from gatewayd.daemon.exit_codes import ExitCode

# What stands in the example for a key without a default.
EXAMPLES = {
    "hub.hostname": '"contoso.azure-devices.net"',
    "hub.trusted_ca": '"/etc/gatewayd/hub-ca.pem"',
    "hub.endpoints.mqtt": '"hub.example.net:8883"',
    "hub.endpoints.websocket": '"hub.example.net:443"',
    "hub.proxy": '"http://proxy.example.net:3128"',
    "hub.proxy_credentials": '"/etc/gatewayd/proxy-credentials"',
    "listener.websocket_address": '"0.0.0.0:443"',
    "listener.certificate": '"/etc/gatewayd/tls/gateway.pem"',
    "listener.private_key": '"/etc/gatewayd/tls/gateway.key"',
    "outbox.ttl": '"30d"',
    "devices.file": '"/etc/gatewayd/devices.csv"',
    "metrics.token_file": '"/etc/gatewayd/status-token"',
}

_HEAD = f"""\
# Configuration

One TOML file, `/etc/gatewayd/gatewayd.toml` unless `--config` names another. This page is made from the code by
`python -m gatewayd.daemon.config_reference docs`; [gatewayd.example.toml](gatewayd.example.toml) holds every key with
its default.

- A key that gatewayd does not know is an error. So is a quantity without its unit: `"60m"`, not `60`.
- A relative path starts at the folder of the configuration file. `"{CREDENTIAL_PREFIX}NAME"` is a file that systemd
  hands over with `LoadCredential=NAME:...`.
- `gatewayd check` reports every problem at once, offline, as a start would judge it.
- `systemctl reload gatewayd` (SIGHUP) reads the file anew. Keys marked *SIGHUP* change while devices stay connected.
  A file with an error, or with a single change to a key marked *restart*, is refused whole, and the old configuration
  stays in force; the log and `gatewayd_config_last_reload_successful` say so.
"""


def reference() -> str:
    """The page."""
    return "\n".join([_HEAD, *(_section(path, says) for path, says in sections().items()), _exit_codes()])


def example() -> str:
    """The file with every key: required ones set, the others as comments that show their default."""
    lines = [
        "# gatewayd: every key with its default. A line that begins with #key is a default, shown, not set.",
        "# docs/configuration.md says what each is for and what is allowed.",
    ]
    for path, says in sections().items():
        lines += ["", f"# {says}", f"[{path}]"]
        for setting in _of(path):
            lines += textwrap.wrap(_plain(setting.says), 100, initial_indent="# ", subsequent_indent="# ")
            value = setting.default if setting.default is not None else EXAMPLES[setting.path]
            lines.append(f"{'' if setting.required else '#'}{setting.key} = {value}")
    return "\n".join(lines) + "\n"


def schema() -> str:
    """The JSON Schema of the file."""
    return json.dumps(Config.model_json_schema(), indent=2) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Write both files, or print the schema."""
    parser = argparse.ArgumentParser(description="Writes the reference of the configuration.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("docs"))
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema and write nothing")
    args = parser.parse_args(arguments)
    if args.schema:
        sys.stdout.write(schema())
        return ExitCode.OK
    (args.folder / "configuration.md").write_text(reference(), encoding="utf-8")
    (args.folder / "gatewayd.example.toml").write_text(example(), encoding="utf-8")
    return ExitCode.OK


def _section(path: str, says: str) -> str:
    rows = [f"## [{path}]", "", says, ""]
    own = _of(path)
    if own:
        rows += ["| key | default | allowed | changed by | meaning |", "|---|---|---|---|---|"]
        rows += [_row(setting) for setting in own]
        rows.append("")
    return "\n".join(rows)


def _row(setting: Setting) -> str:
    default = (
        "required" if setting.required else "none" if setting.default is None else f"`{setting.default}`"
    )
    changed_by = "SIGHUP" if setting.applies is Applies.TUNING else "restart"
    return f"| `{setting.key}` | {default} | {setting.kind.allowed} | {changed_by} | {setting.says} |"


def _exit_codes() -> str:
    rows = [
        "## Exit codes",
        "",
        "Of every `gatewayd` command.",
        "",
        "| code | meaning |",
        "|---|---|",
    ]
    rows += [f"| {code.value} | {code.says} |" for code in ExitCode]
    return "\n".join(rows) + "\n"


def _of(path: str) -> list[Setting]:
    return [setting for setting in settings() if setting.section == path]


def _plain(text: str) -> str:
    return text.replace("`", "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
