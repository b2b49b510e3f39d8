"""Exit codes."""

from __future__ import annotations

import os

from gatewayd.daemon.exit_codes import ExitCode


def test_every_code_has_a_meaning_of_its_own() -> None:
    assert len({code.says for code in ExitCode}) == len(ExitCode)


def test_a_bad_configuration_is_what_sysexits_calls_it() -> None:
    assert int(ExitCode.CONFIG) == os.EX_CONFIG == 78
