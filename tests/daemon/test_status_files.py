"""The page's own files: they are in the package, and a change of one changes their address."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from gatewayd.daemon.status_files import StaticFiles


@pytest.mark.parametrize(
    ("name", "kind"),
    [("status.css", "text/css"), ("status.js", "text/javascript"), ("status.svg", "image/svg+xml")],
)
def test_each_file_is_served_as_what_it_is(name: str, kind: str) -> None:
    file = StaticFiles().find(name)
    assert file is not None
    assert file.content_type == kind
    assert file.body == (resources.files("gatewayd.daemon") / "static" / name).read_bytes()


@pytest.mark.parametrize(
    "name", ["", "..", "../status.py", "../../daemon/static/status.css", "/etc/passwd", "STATUS.CSS"]
)
def test_nothing_else_is(name: str) -> None:
    assert StaticFiles().find(name) is None


def test_the_mark_is_of_the_content_and_fits_an_address() -> None:
    mark = StaticFiles().mark
    assert mark == StaticFiles().mark
    assert re.fullmatch(r"[0-9a-f]{12}", mark)


def test_no_file_asks_another_host_for_anything() -> None:
    files = StaticFiles()
    for name in ("status.css", "status.js"):
        file = files.find(name)
        assert file is not None
        assert b"http" not in file.body
        assert b"url(" not in file.body
        assert b"@import" not in file.body
