"""The house keeps its floors: who may import whom, what is pure, who may read time and start threads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.house import floor_violations

ROOT = Path(__file__).parent.parent


def test_the_house_keeps_its_floors() -> None:
    assert floor_violations(ROOT) == []


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        (
            "tokens/signer.py",
            "import gatewayd.flow.renewal",
            "floor 2 imports gatewayd.flow.renewal on floor 4",
        ),
        (
            "upstream/dialer.py",
            "from gatewayd.downstream import listener",
            "rooms on one floor do not know each other",
        ),
        ("protocol/mqtt/wire.py", "import socket", "pure, but imports socket"),
        ("upstream/budget.py", "from time import monotonic", "pure, but imports time"),
        ("daemon/lifecycle.py", "import time", "imports time, which only gatewayd.clock may"),
        ("flow/intake.py", "import threading", "imports threading, which only"),
        ("emulator/hub.py", "from gatewayd.protocol.iothub import sas", "the emulator may not import"),
        (
            "daemon/assembly.py",
            "from gatewayd.tokens import _sas_native",
            "imports gatewayd.tokens._sas_native",
        ),
        ("attic/box.py", "", "room 'attic' has no floor"),
    ],
)
def test_a_broken_house_is_reported(tmp_path: Path, module: str, source: str, complaint: str) -> None:
    path = tmp_path / "gatewayd" / module
    path.parent.mkdir(parents=True)
    path.write_text(source + "\n")
    assert [fault for fault in floor_violations(tmp_path) if complaint in fault]


def test_a_cycle_is_reported(tmp_path: Path) -> None:
    room = tmp_path / "gatewayd" / "flow"
    room.mkdir(parents=True)
    (room / "a.py").write_text("import gatewayd.flow.b\n")
    (room / "b.py").write_text("import gatewayd.flow.a\n")
    assert floor_violations(tmp_path) == ["cycle: gatewayd.flow.a -> gatewayd.flow.b -> gatewayd.flow.a"]
