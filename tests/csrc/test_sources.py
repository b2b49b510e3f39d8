"""What can be checked about the C by reading it: its constants, its size, and the surface that Python sees."""

from __future__ import annotations

import ast
import re
from math import isqrt
from pathlib import Path

CSRC = Path(__file__).parent.parent.parent / "csrc"


def primes(count: int) -> list[int]:
    found: list[int] = []
    n = 2
    while len(found) < count:
        if all(n % prime for prime in found):
            found.append(n)
        n += 1
    return found


def cube_root(n: int) -> int:
    """The largest integer whose cube is not over n."""
    low, high = 0, 1 << (n.bit_length() // 3 + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**3 <= n else (low, middle - 1)
    return low


def words(name: str) -> list[int]:
    source = (CSRC / "src/sha256_portable.c").read_text()
    table = re.search(rf"{name}\[\d+\] = {{(.*?)}};", source, re.DOTALL)
    assert table is not None
    return [int(word, 16) for word in re.findall(r"0x[0-9a-f]{8}", table[1])]


def test_the_constants_of_sha_256_are_the_roots_of_the_first_primes() -> None:
    """FIPS 180-4 sections 4.2.2 and 5.3.3, in whole numbers."""
    assert words("gw_sha256_k") == [cube_root(prime << 96) & 0xFFFFFFFF for prime in primes(64)]
    assert words("gw_sha256_iv") == [isqrt(prime << 64) & 0xFFFFFFFF for prime in primes(8)]


def test_every_file_in_c_is_under_300_lines() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in CSRC.rglob("*.[ch]")}
    assert len(lengths) > 20
    assert {name: length for name, length in lengths.items() if length >= 300} == {}


def test_every_source_file_is_built_into_the_extension() -> None:
    build = ast.parse((CSRC / "cffi_build.py").read_text())
    listed = next(
        ast.literal_eval(node.value)
        for node in build.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SOURCES"
    )
    assert sorted(listed) == sorted(path.stem for path in (CSRC / "src").glob("*.c"))


def test_nothing_in_the_signer_calls_back_prints_or_reads_the_time() -> None:
    forbidden = re.compile(r"\b(printf|fprintf|puts|syslog|time|clock_gettime|abort|exit|getenv)\(")
    assert [path.name for path in (CSRC / "src").glob("*.c") if forbidden.search(path.read_text())] == []
