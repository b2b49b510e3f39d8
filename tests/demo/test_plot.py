"""The picture is drawn without a display, as PNG and as SVG, and says what it shows."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from gatewayd.demo.plot import Panel, draw, other_panel, own_panel
from gatewayd.demo.settings import Settings

SETTINGS = Settings(duration=60.0)
OWN = [50] * 10 + [20] * 50
OTHER = ([50] * 10 + [0] * 20) * 2


def panels() -> list[Panel]:
    return [
        other_panel("wait until the hub cuts", OTHER, {"401003": 1000, "404104": 1000}),
        own_panel(SETTINGS, OWN, {}),
    ]


def test_a_png_has_two_panels_of_pixels(tmp_path: Path) -> None:
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    draw(SETTINGS, panels()[1:], one)
    draw(SETTINGS, panels(), two)
    heights = [int.from_bytes(path.read_bytes()[20:24]) for path in (one, two)]
    assert one.read_bytes().startswith(b"\x89PNG")
    assert heights[1] > heights[0] * 1.4


def test_an_svg_says_in_words_what_it_shows(tmp_path: Path) -> None:
    path = tmp_path / "fleet.svg"
    draw(SETTINGS, panels(), path)
    words = " ".join(element.text or "" for element in ElementTree.parse(path).iter() if element.text)
    assert "500 devices, tokens of 30 s" in words
    assert "401003 × 1,000" in words
    assert "hub errors: none" in words
    assert "seconds since the first device was switched on" in words


def test_our_panel_shows_what_no_placement_can_go_below() -> None:
    assert own_panel(SETTINGS, OWN, {}).floor == pytest.approx(19.6, abs=0.05)
    assert other_panel("fixed", OTHER, {}).floor is None


def test_a_run_in_which_nothing_connected_can_be_drawn(tmp_path: Path) -> None:
    draw(SETTINGS, [own_panel(SETTINGS, [0] * 60, {})], tmp_path / "nothing.png")
    assert (tmp_path / "nothing.png").stat().st_size > 0
