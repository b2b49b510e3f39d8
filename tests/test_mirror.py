"""Every module has its test module, and every test module its module."""

from __future__ import annotations

from pathlib import Path

from tests.support.house import mirror_violations

ROOT = Path(__file__).parent.parent


def test_every_module_has_its_tests_and_every_test_its_module() -> None:
    assert mirror_violations(ROOT) == []


def test_a_module_without_tests_and_a_test_without_module_are_reported(tmp_path: Path) -> None:
    for path in ("gatewayd/flow/intake.py", "tests/flow/test_nothing.py"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text("")
    assert mirror_violations(tmp_path) == [
        "gatewayd.flow.intake: has no tests/flow/test_intake.py",
        "tests/flow/test_nothing.py: mirrors no module",
    ]
