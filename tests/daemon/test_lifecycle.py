"""The life of the daemon in this process: a service manager that answers each notification with the next signal."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest

from gatewayd.clock import SystemClock
from gatewayd.daemon import lifecycle
from gatewayd.daemon.config_load import load_config
from gatewayd.daemon.exit_codes import ExitCode
from gatewayd.daemon.logs import open_logs
from gatewayd.daemon.process_limits import ProcessLimits
from gatewayd.daemon.progress import Stall
from gatewayd.daemon.reload import Reloader, ReloadOutcome
from gatewayd.daemon.start import Startup
from gatewayd.daemon.status import DaemonStatus
from gatewayd.daemon.systemd import Notifier
from gatewayd.errors import ConfigError, NativeSignerError
from tests.support.config_files import ConfigFolder, write_config


class Manager(Notifier):
    """A service manager. `script` is what it does at each READY, in turn; after the last it says SIGTERM."""

    __slots__ = ("fed", "heard", "script")

    def __init__(self, script: list[Callable[[], None]]) -> None:
        super().__init__(None)
        self.script = script
        self.heard: list[str] = []
        self.fed = 0

    def ready(self, status: str = "") -> bool:
        self.heard.append(f"READY {status}")
        if self.script:
            self.script.pop(0)()
        else:
            os.kill(os.getpid(), signal.SIGTERM)
        return True

    def reloading(self, now: float) -> bool:
        self.heard.append("RELOADING")
        assert now > 0
        return True

    def stopping(self, status: str = "") -> bool:
        self.heard.append("STOPPING")
        return True

    def alive(self) -> bool:
        self.fed += 1
        return True


@pytest.fixture(autouse=True)
def level_of_the_loggers() -> Iterator[None]:
    before = [(logger, logger.level) for logger in (logging.getLogger(), logging.getLogger("gatewayd"))]
    yield
    for logger, level in before:
        logger.setLevel(level)


@pytest.fixture(autouse=True)
def no_limits_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits cannot be given back, and this process has other tests to run."""
    monkeypatch.setattr(lifecycle, "raise_limits", lambda: ProcessLimits(open_files=1024))
    monkeypatch.setattr(lifecycle, "search_seldom", lambda: None)


@pytest.fixture
def files(tmp_path: Path) -> ConfigFolder:
    files = write_config(tmp_path)
    text = files.toml.read_text().replace("[listener]\n", '[listener]\naddress = "127.0.0.1:0"\n')
    files.toml.write_text(text + '[metrics]\naddress = "127.0.0.1:0"\n[log]\nlevel = "info"\n')
    return files


class Run:
    """One life, from start to exit code."""

    def __init__(
        self,
        files: ConfigFolder,
        script: list[Callable[[], None]],
        *,
        devices: int = 3,
        watchdog: float | None = None,
    ) -> None:
        stderr = StringIO()
        config = load_config(files.toml, {})
        self.manager = Manager(script)
        logs = open_logs("json", config.log.level, stderr, {})
        try:
            self.code = lifecycle.serve(
                Startup(
                    config=config,
                    devices=devices,
                    load_again=lambda: load_config(files.toml, {}),
                    logs=logs,
                    notifier=self.manager,
                    watchdog_seconds=watchdog,
                ),
                SystemClock(),
            )
        finally:
            logs.close()
        self.log = [json.loads(line) for line in stderr.getvalue().splitlines()]

    def said(self, words: str) -> list[dict[str, str]]:
        return [line for line in self.log if words in line["message"]]


def hang_up() -> None:
    os.kill(os.getpid(), signal.SIGHUP)


def rewrite(files: ConfigFolder, before: str, after: str) -> None:
    text = files.toml.read_text()
    assert before in text
    files.toml.write_text(text.replace(before, after))


def test_it_says_ready_serves_and_stops_when_told(files: ConfigFolder) -> None:
    run = Run(files, [])
    assert run.code == ExitCode.OK
    assert run.manager.heard == ["READY serving", "STOPPING"]
    assert run.said("serves 3 identities")
    assert run.said("gatewayd has stopped")
    assert run.manager.fed == 0, "nobody watches"


def test_an_interrupt_stops_it_too(files: ConfigFolder) -> None:
    run = Run(files, [lambda: os.kill(os.getpid(), signal.SIGINT)])
    assert (run.code, run.manager.heard[-1]) == (ExitCode.OK, "STOPPING")


def test_the_signals_are_the_process_own_again_afterwards(files: ConfigFolder) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    Run(files, [])
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before


def test_a_watchdog_is_fed_from_the_first_moment(files: ConfigFolder) -> None:
    assert Run(files, [], watchdog=30.0).manager.fed >= 1


def test_a_reload_says_each_change_and_the_level_of_the_log_is_in_force(files: ConfigFolder) -> None:
    def change() -> None:
        rewrite(files, 'level = "info"', 'level = "warning"')
        hang_up()

    run = Run(files, [change])
    assert run.manager.heard == ["READY serving", "RELOADING", "READY serving", "STOPPING"]
    assert run.said("serves 3 identities")
    assert run.said("gatewayd has stopped") == [], "it is only of level info"


def test_a_reload_of_the_same_file_says_that_nothing_has_changed(files: ConfigFolder) -> None:
    run = Run(files, [hang_up])
    assert run.said("reload: nothing has changed")
    assert run.manager.heard[2] == "READY serving"


@pytest.mark.parametrize("how", ["bad", "restart", "absent", "garbage"])
def test_a_reload_that_cannot_be_is_told_and_changes_nothing(files: ConfigFolder, how: str) -> None:
    def spoil() -> None:
        if how == "absent":
            files.toml.unlink()
        elif how == "garbage":
            files.toml.write_bytes(b"\xff\xfe")
        else:
            rewrite(files, 'level = "info"', 'level = "debug"')
            rewrite(files, "[metrics]\n", "[metrics]\nnonsense = 1\n" if how == "bad" else "[metrics]\n")
            if how == "restart":
                rewrite(files, 'file = "devices.csv"', 'file = "others.csv"')
        hang_up()

    run = Run(files, [spoil])
    assert run.code == ExitCode.OK
    assert "refused" in run.manager.heard[2]
    problem = {"bad": "metrics.nonsense", "restart": "devices.file"}.get(how, "gatewayd.toml")
    assert problem in run.said("the old configuration goes on")[0]["message"]
    assert [line for line in run.log if line["level"] == "debug"] == []


def test_a_fault_of_ours_in_a_reload_is_logged_and_ends_the_reload_all_the_same(
    files: ConfigFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(reloader: Reloader) -> ReloadOutcome:
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(Reloader, "reload", fault)
    run = Run(files, [hang_up])
    assert run.code == ExitCode.OK
    assert run.manager.heard[1] == "RELOADING"
    assert "refused" in run.manager.heard[2]
    assert any("nobody foresaw this" in line.get("exception", "") for line in run.log)


def test_a_reload_after_a_refused_one_is_taken(files: ConfigFolder) -> None:
    def spoil() -> None:
        rewrite(files, 'level = "info"', 'level = "loud"')
        hang_up()

    def mend() -> None:
        rewrite(files, 'level = "loud"', 'level = "info"\n[tokens]\nlifetime = "30m"')
        hang_up()

    run = Run(files, [spoil, mend])
    assert [heard for heard in run.manager.heard if heard.startswith("READY")][-1] == "READY serving"
    assert run.said('reload: tokens.lifetime: "1h" becomes "30m"')


def test_the_status_hears_of_each_reload_and_why_it_was_refused(
    files: ConfigFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[list[str]] = []
    monkeypatch.setattr(
        DaemonStatus, "reloaded", lambda _, problems: heard.append([problem.path for problem in problems])
    )

    def spoil() -> None:
        rewrite(files, 'level = "info"', 'level = "loud"')
        hang_up()

    Run(files, [hang_up, spoil])
    assert heard == [[], ["log.level"]]


def test_a_start_that_fails_is_told_in_its_own_words(files: ConfigFolder) -> None:
    """Not wrapped by the task group it happened in: whoever logs it looks at its kind."""
    rewrite(
        files,
        '[metrics]\naddress = "127.0.0.1:0"',
        '[metrics]\naddress = "192.0.2.1:9"\nanonymous = "metrics"',
    )
    with pytest.raises(ConfigError, match=r"metrics\.address: cannot listen on 192\.0\.2\.1:9"):
        Run(files, [])


def test_a_gateway_that_cannot_be_made_is_told_in_its_own_words(
    files: ConfigFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NativeSignerError("the signer failed its self-test")

    monkeypatch.setattr(lifecycle, "Gateway", refuse)
    with pytest.raises(NativeSignerError, match="self-test"):
        Run(files, [])


def test_a_reload_during_the_drain_is_not_begun(files: ConfigFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopping(manager: Manager, status: str = "") -> bool:
        manager.heard.append("STOPPING")
        hang_up()
        return True

    monkeypatch.setattr(Manager, "stopping", stopping)
    run = Run(files, [])
    assert run.manager.heard == ["READY serving", "STOPPING"]
    assert run.code == ExitCode.OK


def test_more_devices_than_open_files_can_serve_are_warned_of(files: ConfigFolder) -> None:
    run = Run(files, [], devices=300)
    assert run.said("1024 open files are enough for 298 devices and the device file has 300")
    assert Run(files, [], devices=298).said("LimitNOFILE=") == []


def test_a_stall_is_said_with_what_follows_from_it(
    files: ConfigFolder, caplog: pytest.LogCaptureFixture
) -> None:
    lifecycle._Life._stalled(None, Stall("renewal", 12.0, 10.0))  # type: ignore[arg-type]  # it needs nothing else
    assert "renewal has not reported for 12.0 s" in caplog.text
    assert "the watchdog is not fed any more" in caplog.text


def test_a_credential_is_a_file_that_the_service_manager_handed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert not lifecycle._is_credential(tmp_path / "devices.csv")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert lifecycle._is_credential(tmp_path / "devices.csv")
    assert not lifecycle._is_credential(tmp_path / "below" / "devices.csv")
