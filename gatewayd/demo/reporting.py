"""A run of the demo as a person or a script meets it: what is shown, said, drawn, and the exit code.

Leaves no process and no file behind, whether the run ends well, ends badly or is interrupted.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import signal
import sys
from pathlib import Path

from rich.console import Console

from gatewayd.daemon.exit_codes import ExitCode
from gatewayd.demo.comparison import HOW
from gatewayd.demo.processes import ChildFailed
from gatewayd.demo.readings import NotThere
from gatewayd.demo.settings import Settings
from gatewayd.demo.show import Outcome, Sabotage, perform
from gatewayd.demo.summary import all_passed, failures_text
from gatewayd.demo.table import comparison_table, screen_for, summary_table, verdict_lines

INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it


def run_and_report(settings: Settings, *, as_json: bool, plot: Path | None, sabotage: str | None) -> int:
    """Run, say how it went, draw. The exit code is the verdict."""
    # With --json standard output holds the JSON alone, so that it can be piped.
    console = Console(stderr=as_json)
    try:
        outcome = asyncio.run(_perform(settings, console, Sabotage(sabotage) if sabotage else None))
    except (ChildFailed, NotThere) as failure:
        _complain(f"the demo failed: {failure}")
        return ExitCode.FAILED
    except (KeyboardInterrupt, asyncio.CancelledError):
        _complain("interrupted; everything that was started has been ended")
        return INTERRUPTED
    if plot is not None:
        _draw(settings, outcome, plot)
    return _report(outcome, console, as_json=as_json)


async def _perform(settings: Settings, console: Console, sabotage: Sabotage | None) -> Outcome:

    task = asyncio.current_task()
    assert task is not None
    # SIGINT is asyncio's own business; SIGTERM shall tidy up in the same way.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with screen_for(console) as screen:
        return await perform(settings, screen, sabotage)


def _report(outcome: Outcome, console: Console, *, as_json: bool) -> int:

    passed = all_passed(outcome.criteria)
    if as_json:
        fields = dataclasses.asdict(outcome.summary)
        if outcome.other is not None:
            fields["comparison"] = outcome.other.as_dict()
        print(json.dumps(fields))
    else:
        console.print(summary_table(outcome.summary))
        if outcome.other is not None:
            console.print(comparison_table(outcome.summary, outcome.seen, outcome.other))
        console.print(verdict_lines(outcome.criteria))
    if not passed:
        _complain(failures_text(outcome.criteria))
        for remark in outcome.remarks:
            _complain(remark)
    return ExitCode.OK if passed else ExitCode.FAILED


def _draw(settings: Settings, outcome: Outcome, path: Path) -> None:

    from gatewayd.demo.plot import draw, other_panel, own_panel  # noqa: PLC0415  # matplotlib is slow to import

    panels = [own_panel(settings, outcome.connects_per_second, outcome.summary.hub_errors)]
    other = outcome.other
    if other is not None and outcome.other_connects_per_second is not None:
        panels.insert(0, other_panel(HOW[other.policy], outcome.other_connects_per_second, other.hub_errors))
    draw(settings, panels, path)


def _complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
