"""The first steps of `gatewayd run`: configuration, logs, the service manager. Then the daemon serves.

In this order, because each step can fail and says so with what the step before gave it: a configuration that cannot be
used is told on standard error, all of it, before anything is opened; after that every word goes to the log, an error
that nobody foresaw too, so that what it says passes the redaction.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from gatewayd.clock import Clock, ClockWatch
from gatewayd.daemon.config import Config
from gatewayd.daemon.config_examination import Examination, examine
from gatewayd.daemon.config_load import DEFAULT_CONFIG_FILE
from gatewayd.daemon.exit_codes import ExitCode
from gatewayd.daemon.logs import Logs, open_logs
from gatewayd.daemon.systemd import Notifier, watchdog_seconds
from gatewayd.errors import Actor, ConfigError, GatewaydError

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Startup:
    """What the daemon is given to serve with.

    `load_again` is for a reload: it reads and judges the file anew, and raises ConfigError when it cannot be used.
    `watchdog_seconds` is None when no service manager watches.
    """

    config: Config
    devices: int | None
    load_again: Callable[[], Config]
    logs: Logs
    notifier: Notifier
    watchdog_seconds: float | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `gatewayd run`."""
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG_FILE, metavar="FILE", help="default: %(default)s"
    )


def start(
    config_file: Path,
    serve: Callable[[Startup], int],
    clock: Clock,
    *,
    environ: MutableMapping[str, str] = os.environ,
    stderr: TextIO | None = None,
) -> int:
    """Take the first steps, then `serve` until it returns the exit code."""
    errors = sys.stderr if stderr is None else stderr
    notifier = Notifier.from_environment(environ)
    watched = watchdog_seconds(environ, os.getpid())

    def examination() -> Examination:
        wall = clock.wall() if ClockWatch(clock).trusted else None
        return examine(config_file, environ, wall)

    try:
        examined = examination()
        config = examined.usable()
    except ConfigError as error:
        for problem in error.problems:
            print(f"gatewayd: {problem}", file=errors)
        notifier.status(f"the configuration cannot be used: {error.problems[0]}")
        notifier.close()
        return ExitCode.CONFIG
    logs = open_logs(config.log.format, config.log.level, errors, environ)
    for warning in examined.warnings:
        LOG.warning("configuration: %s", warning)
    try:
        return serve(
            Startup(
                config=config,
                devices=examined.devices,
                load_again=lambda: examination().usable(),
                logs=logs,
                notifier=notifier,
                watchdog_seconds=watched,
            )
        )
    except Exception as error:
        # A trace only where we must act: for anyone else it would hide what the message says.
        ours = error.acts is Actor.WE if isinstance(error, GatewaydError) else not isinstance(error, OSError)
        if ours:
            LOG.exception("gatewayd cannot go on: this is a fault of gatewayd")
        else:
            LOG.error("gatewayd cannot go on: %s", error)  # noqa: TRY400 - see above
        notifier.status("gatewayd cannot go on, see the log")
        return ExitCode.FAILED
    finally:
        logs.close()
        notifier.close()
