"""Tokens are those of azure-iot-device, under every engine, and only the right key's MAC is taken."""

from __future__ import annotations

import ast
import base64
import hmac
import re
import subprocess
import sys
from array import array
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from azure.iot.device.common.auth.sastoken import RenewableSasToken
from azure.iot.device.common.auth.signing_mechanism import SymmetricKeySigningMechanism
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.errors import NativeSignerError, RemoteProtocolError
from gatewayd.tokens import _sas_native
from gatewayd.tokens._sas_native import ffi, lib
from gatewayd.tokens.key_table import KeyTable
from gatewayd.tokens.signer import Signer, TokenBatch, engine_name
from tests.support.sas_oracle import VECTORS, engine_forced, engines, key_text, raw_key, signature, token

SE: int = VECTORS["expiry"]
ROOT = Path(__file__).parent.parent.parent

OURS = [row for row in VECTORS["tokens"] if row["ours"]]
ALL = VECTORS["tokens"]


def case(row: dict[str, Any]) -> str:
    return str(row["case"]).replace(" ", "_")


@pytest.fixture(params=engines())
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each engine of the build in turn; one that this machine lacks is skipped by name."""
    name: str = request.param
    if not lib.gw_engine_available(name.encode()):
        pytest.skip(f"this machine has no {name}")
    with engine_forced(name):
        yield name


# The vectors


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("row", OURS, ids=case)
def test_tokens_equal_the_published_ones(row: dict[str, Any]) -> None:
    table = KeyTable()
    key = bytearray(VECTORS["keys"][row["key"]].encode())
    index = table.add("d", key, row["audience"], row["policy"])
    assert Signer(table).sign_one(index, SE).decode() == row["token"]
    assert Signer(table).sign_many([index] * 3, SE).tolist() == [row["token"]] * 3


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("row", ALL, ids=case)
def test_tokens_of_every_sdk_verify_under_their_key_and_no_other(row: dict[str, Any]) -> None:
    table = KeyTable()
    index = {
        name: table.add_unsigning(name, bytearray(key.encode())) for name, key in VECTORS["keys"].items()
    }
    signer = Signer(table)
    for name, handle in index.items():
        claims = signer.verify(handle, row["token"])
        assert claims.authentic == (name == row["key"])
        assert claims.resource == row["token"].split("sr=")[1].split("&")[0]
        assert (claims.expiry, claims.policy) == (SE, row["policy"])


# Against the standard library, and against the SDK


audiences = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)
policies = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="&"), max_size=40)
expiries = st.integers(0, 2**63 - 1)
fleets = st.lists(
    st.tuples(st.binary(min_size=16, max_size=64), audiences, policies), min_size=1, max_size=40
)


@pytest.mark.parametrize("name", engines())
@settings(max_examples=150, deadline=None)
@given(fleet=fleets, expiry=expiries, data=st.data())
def test_any_fleet_gets_the_tokens_of_the_standard_library(
    name: str, fleet: list[tuple[bytes, str, str]], expiry: int, data: st.DataObject
) -> None:
    if not lib.gw_engine_available(name.encode()):
        pytest.skip(f"this machine has no {name}")
    order = data.draw(st.permutations(range(len(fleet))))
    with engine_forced(name):
        table = KeyTable(1)
        signer = Signer(table)
        indices = [table.add("d", key_text(raw), audience, skn) for raw, audience, skn in fleet]
        got = signer.sign_many([indices[i] for i in order], expiry).tolist()
        alone = signer.sign_one(indices[order[0]], expiry).decode()
        verified = [signer.verify(indices[i], text) for i, text in zip(order, got, strict=True)]
    want = [token(fleet[i][0], fleet[i][1], expiry, fleet[i][2]) for i in order]
    assert got == want
    assert alone == want[0]
    assert all(claims.authentic and claims.expiry == expiry for claims in verified)
    assert [claims.policy for claims in verified] == [fleet[i][2] for i in order]


# Ways in which someone may write a resource: encoded or not, in either case.
resources = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="&"), min_size=1)
numbers = st.integers(0, 2**63 - 1).map(str) | st.sampled_from(["0", "007", "00000000001767225600"[-19:]])


@settings(max_examples=300, deadline=None)
@given(
    raw=st.binary(min_size=16, max_size=64),
    sr=resources,
    se=numbers,
    policy=policies,
    lower=st.booleans(),
    data=st.data(),
)
def test_a_mac_counts_over_what_stands_in_the_token(
    raw: bytes, sr: str, se: str, policy: str, *, lower: bool, data: st.DataObject
) -> None:
    table = KeyTable(2)
    right = table.add_unsigning("right", key_text(raw))
    wrong = table.add_unsigning("wrong", key_text(raw_key("another")))
    sig = signature(raw, f"{sr}\n{se}")
    if lower:
        sig = re.sub(r"%..", lambda escape: escape[0].lower(), sig)
    fields = [f"sr={sr}", f"sig={sig}", f"se={se}", *([f"skn={policy}"] if policy else [])]
    text = "SharedAccessSignature " + "&".join(data.draw(st.permutations(fields)))
    signer = Signer(table)
    claims = signer.verify(right, text)
    assert (claims.resource, claims.expiry, claims.policy, claims.authentic) == (sr, int(se), policy, True)
    assert not signer.verify(wrong, text).authentic


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_changed_token_is_not_authentic_or_not_a_token(data: st.DataObject) -> None:
    table = KeyTable(1)
    index = table.add("d", key_text(raw_key("d")), "hub.azure-devices.net/devices/d", "device")
    text = bytearray(Signer(table).sign_one(index, SE))
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != text[place]))
    original = bytes(text)
    text[place] = other
    try:
        claims = Signer(table).verify(index, text)
    except RemoteProtocolError:
        return
    # The MAC covers neither its own spelling (hex in either case, unused bits of the last character) nor skn.
    uncovered = original.index(b"&sig=") < place < original.index(b"&se=") or place > original.index(b"&skn=")
    assert uncovered or not claims.authentic


@settings(max_examples=200, deadline=None)
@given(
    text=st.binary(max_size=300) | st.binary(max_size=200).map(lambda tail: b"SharedAccessSignature " + tail)
)
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    table = KeyTable(1)
    index = table.add_unsigning("d", key_text(raw_key("d")))
    with suppress(RemoteProtocolError):
        assert not Signer(table).verify(index, text).authentic


sdk_token: Any = RenewableSasToken
sdk_key: Any = SymmetricKeySigningMechanism


def test_tokens_equal_those_of_azure_iot_device() -> None:
    table = KeyTable()
    fleet = [
        (f"hub.azure-devices.net/devices/d-{i}+ä/'*({i % 7})", "device" if i % 3 else "") for i in range(100)
    ]
    indices = [table.add("d", key_text(raw_key(audience)), audience, skn) for audience, skn in fleet]
    with patch("azure.iot.device.common.auth.sastoken.time.time", return_value=1_767_222_000.9):
        azure = [
            str(sdk_token(audience, sdk_key(bytes(key_text(raw_key(audience)))), skn or None, 3600))
            for audience, skn in fleet
        ]
    assert Signer(table).sign_many(indices, 1_767_225_600).tolist() == azure


# What is refused


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not a SharedAccessSignature"),
        ("Bearer abc", "not a SharedAccessSignature"),
        ("SharedAccessSignature sr=a&se=1", "a field is"),
        ("SharedAccessSignature sr=a&sr=a&sig=b&se=1", "a field is"),
        ("SharedAccessSignature sr=a&sig=b&se=1&x=2", "a field is"),
        ("SharedAccessSignature sr=\u00e4&sig=b&se=1", "a field is"),
        ("SharedAccessSignature sr=a&sig=b&se=soon", "se is not"),
        ("SharedAccessSignature sr=a&sig=b&se=1", "sig is not"),
        ("SharedAccessSignature sr=" + "a" * 4096, "longer than"),
    ],
)
def test_a_text_that_is_no_token_is_the_peers_error_and_is_not_repeated(text: str, problem: str) -> None:
    table = KeyTable(1)
    index = table.add_unsigning("d", key_text(raw_key("d")))
    with pytest.raises(RemoteProtocolError, match=f"SAS token: {problem}") as caught:
        Signer(table).verify(index, text)
    assert len(str(caught.value)) < 90


def test_verifying_takes_every_kind_of_bytes() -> None:
    table = KeyTable(1)
    index = table.add("d", key_text(raw_key("d")), "a")
    made = Signer(table).sign_one(index, SE)
    for text in (made, bytearray(made), memoryview(made), made.decode()):
        assert Signer(table).verify(index, text).authentic


@pytest.mark.parametrize("expiry", [-1, 2**63])
def test_an_expiry_no_hub_can_hold_is_refused(expiry: int) -> None:
    table = KeyTable(1)
    index = table.add("d", key_text(raw_key("d")), "a")
    for sign in (Signer(table).sign_one, lambda i, se: Signer(table).sign_many([i], se)):
        with pytest.raises(ValueError, match="expected seconds since 1970"):
            sign(index, expiry)


def test_a_batch_with_an_unknown_index_names_it_and_hands_out_nothing() -> None:
    table = KeyTable()
    good = [table.add("d", key_text(raw_key("d")), "a") for _ in range(40)]
    batch = Signer(table).sign_many(good, SE)
    with pytest.raises(NativeSignerError, match="no key to sign with under this index: 777"):
        Signer(table).sign_many([*good[:33], 777, *good[33:]], SE, batch)
    assert len(batch) == 0
    with pytest.raises(NativeSignerError, match="no key"):
        Signer(table).verify(777, "x")


def test_a_wiped_handle_refuses_to_sign_and_to_verify() -> None:
    table = KeyTable()
    signer = Signer(table)
    index = table.add("d", key_text(raw_key("d")), "a")
    made = signer.sign_one(index, SE)
    table.remove(index)
    for misuse in (
        lambda: signer.sign_one(index, SE),
        lambda: signer.sign_many([index], SE),
        lambda: signer.verify(index, made),
    ):
        with pytest.raises(NativeSignerError, match="no key"):
            misuse()


# Batches


@pytest.fixture
def fleet() -> tuple[Signer, list[int], list[str]]:
    table = KeyTable()
    names = [f"hub.azure-devices.net/devices/d{'x' * (i % 90)}{i}" for i in range(100)]
    indices = [table.add(name, key_text(raw_key(name)), name) for name in names]
    return Signer(table), indices, [token(raw_key(name), name, SE) for name in names]


def test_a_batch_reads_like_a_sequence(fleet: tuple[Signer, list[int], list[str]]) -> None:
    signer, indices, want = fleet
    batch = signer.sign_many(indices, SE)
    assert len(batch) == 100
    assert [batch[0], batch[99], batch[-1], batch[-100]] == [want[0], want[99], want[99], want[0]]
    assert list(batch) == want
    assert bytes(batch.view(42)) == want[42].encode()
    assert batch.view(42).readonly
    for outside in (100, -101):
        with pytest.raises(IndexError, match="of 100"):
            batch[outside]


@pytest.mark.parametrize(
    "kind", [list, tuple, iter, lambda indices: array("I", indices), lambda _: range(100)]
)
def test_indices_may_come_as_any_iterable(fleet: tuple[Signer, list[int], list[str]], kind: Any) -> None:
    signer, indices, want = fleet
    assert signer.sign_many(kind(indices), SE).tolist() == want


def test_an_empty_batch_is_empty(fleet: tuple[Signer, list[int], list[str]]) -> None:
    assert fleet[0].sign_many([], SE).tolist() == []
    assert TokenBatch().tolist() == []


def test_an_arena_is_used_again(fleet: tuple[Signer, list[int], list[str]]) -> None:
    signer, indices, want = fleet
    batch = signer.sign_many(indices, SE)
    view = batch.view(0)
    assert signer.sign_many(indices[1:], SE, batch) is batch
    assert batch.tolist() == want[1:]
    assert bytes(view[:25]) == b"SharedAccessSignature sr="
    assert bytes(view) != want[0].encode()


def test_an_arena_that_is_looked_at_is_replaced_rather_than_moved(
    fleet: tuple[Signer, list[int], list[str]],
) -> None:
    signer, indices, want = fleet
    batch = signer.sign_many(indices[:1], SE)
    view = batch.view(0)
    signer.sign_many(indices, SE, batch)
    assert batch.tolist() == want
    assert bytes(view) == want[0].encode()


def test_a_wiped_batch_holds_no_token(fleet: tuple[Signer, list[int], list[str]]) -> None:
    signer, indices, _ = fleet
    batch = signer.sign_many(indices, SE)
    view = batch.view(3)
    batch.wipe()
    assert len(batch) == 0
    assert not any(view)
    TokenBatch().wipe()


def test_a_token_longer_than_any_before_still_fits() -> None:
    table = KeyTable()
    short = table.add("s", key_text(raw_key("s")), "a")
    signer = Signer(table)
    signer.sign_one(short, SE)
    audience = "/" * 600
    long = table.add("l", key_text(raw_key("l")), audience, "p" * 100)
    assert signer.sign_one(long, SE).decode() == token(raw_key("l"), audience, SE, "p" * 100)
    assert signer.sign_one(short, SE).decode() == token(raw_key("s"), "a", SE)


# Engines


def test_the_fastest_engine_of_this_machine_signs() -> None:
    available = [name for name in engines() if lib.gw_engine_available(name.encode())]
    assert engine_name() == Signer(KeyTable(1)).engine == available[0]


def test_an_engine_this_machine_lacks_is_an_error_and_changes_nothing() -> None:
    before = engine_name()
    missing = [name for name in engines() if not lib.gw_engine_available(name.encode())]
    assert missing, "no machine has both SHA-NI and ARMv8-CE"
    for name in (*missing, "avx-1024"):
        assert lib.gw_engine_force_for_testing(name.encode()) == lib.GW_ERR_ENGINE
    assert engine_name() == before


def test_nothing_but_tests_and_benchmarks_forces_an_engine() -> None:
    callers = [
        path.relative_to(ROOT)
        for path in (ROOT / "gatewayd").rglob("*.py")
        if "force_for_testing" in path.read_text(encoding="utf-8")
    ]
    assert callers == []


def test_there_is_no_python_signer_to_fall_back_to() -> None:
    script = (
        "import sys; sys.modules['gatewayd.tokens._sas_native'] = None\n"
        "try:\n    import gatewayd.tokens.signer\n"
        "except ImportError:\n    print('refused')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, cwd=ROOT
    )
    assert done.stdout.strip() == "refused"


def test_the_declared_surface_is_the_built_one() -> None:
    stub = ast.parse((ROOT / "gatewayd/tokens/_sas_native.pyi").read_text(encoding="utf-8"))
    members = [
        node for cls in stub.body if isinstance(cls, ast.ClassDef) and cls.name == "_Lib" for node in cls.body
    ]
    functions = {node.name for node in members if isinstance(node, ast.FunctionDef)}
    constants = {ast.unparse(node.target) for node in members if isinstance(node, ast.AnnAssign)}
    assert functions | constants == {name for name in dir(lib) if name.startswith(("gw_", "GW_"))}
    assert Path(str(_sas_native.__file__)).name == "_sas_native.abi3.so"


def test_every_error_of_the_signer_has_a_sentence_of_its_own() -> None:
    codes = [getattr(lib, name) for name in dir(lib) if name.startswith("GW_ERR_")]
    sentences = {ffi.string(lib.gw_error_text(code)) for code in codes}
    assert len(sentences) == len(codes) == 15
    assert ffi.string(lib.gw_error_text(-99)) == b"unknown error"


def test_the_oracle_itself_agrees_with_the_vectors() -> None:
    for row in OURS:
        raw = base64.b64decode(VECTORS["keys"][row["key"]])
        assert token(raw, row["audience"], SE, row["policy"]) == row["token"]
    for row in VECTORS["rfc4231"]:
        mac = hmac.digest(bytes.fromhex(row["key"]), bytes.fromhex(row["data"]), "sha256")
        assert mac.hex().startswith(row["mac"])
