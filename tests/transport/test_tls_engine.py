"""Ciphertext in, plaintext out, however it is cut; the other end is an `ssl.SSLObject` of the standard library."""

from __future__ import annotations

import random
import ssl

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatewayd.transport.tls_engine import RECORD_BYTES, STEP_BYTES, TlsEngine
from tests.support.tls_material import HUB, Tls

NOTHING = memoryview(b"")


class Peer:
    """The other end, from the standard library alone."""

    def __init__(
        self, context: ssl.SSLContext, hostname: str | None, session: ssl.SSLSession | None = None
    ) -> None:
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming,
            self.outgoing,
            server_side=hostname is None,
            server_hostname=hostname,
            session=session,
        )

    def shake_hands(self, cipher: bytes) -> bool:
        self.incoming.write(cipher)
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def read(self, cipher: bytes) -> bytes:
        self.incoming.write(cipher)
        got = bytearray()
        try:
            while piece := self.tls.read(65536):
                got += piece
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            return bytes(got)
        return bytes(got)

    def write(self, *plaintexts: bytes) -> bytes:
        for plaintext in plaintexts:
            self.tls.write(plaintext)
        return self.outgoing.read()


class Pair:
    """An engine of ours that shook hands with a peer, its bytes fed in pieces of `cut`."""

    def __init__(
        self, tls: Tls, version: ssl.TLSVersion, *, we_serve: bool = True, cut: int = 1 << 20
    ) -> None:
        if we_serve:
            self.ours = TlsEngine(tls.our_server(), None)
            self.peer = Peer(tls.their_client(version), HUB)
        else:
            self.ours = TlsEngine(tls.our_client(), HUB)
            self.peer = Peer(tls.their_server(version), None)
        self.plain = memoryview(bytearray(4 * 65536))
        done = self.peer_done = False
        for _ in range(10):
            if not done:
                done = self.feed_handshake(self.peer.outgoing.read(), cut)
            if not self.peer_done:
                self.peer_done = self.peer.shake_hands(self.ours.take())
        assert done
        assert self.peer_done
        self.decrypt(self.peer.outgoing.read())
        self.peer.read(self.ours.take())

    def feed_handshake(self, data: bytes, cut: int) -> bool:
        if not data:
            return self.ours.shake_hands(NOTHING)
        done = False
        for start in range(0, len(data), cut):
            piece = memoryview(data[start : start + cut])
            if done:
                self.ours.decrypt(piece, self.plain)
            else:
                done = self.ours.shake_hands(piece)
        return done

    def decrypt(self, data: bytes) -> bytes:
        return bytes(self.plain[: self.ours.decrypt(memoryview(data), self.plain)])


@pytest.mark.parametrize("we_serve", [True, False], ids=["server", "client"])
@pytest.mark.parametrize("cut", [1, 7, 100_000], ids=["byte by byte", "sevens", "whole"])
def test_the_handshake_is_done_however_its_bytes_are_cut(
    tls: Tls, version: ssl.TLSVersion, we_serve: bool, cut: int
) -> None:
    pair = Pair(tls, version, we_serve=we_serve, cut=cut)
    assert pair.decrypt(pair.peer.write(b"ping")) == b"ping"
    assert pair.peer.read(pair.ours.encrypt(b"pong")) == b"pong"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 40_000), min_size=1, max_size=40), seed=st.integers(0, 2**32))
def test_data_comes_out_whole_however_its_ciphertext_is_cut(tls: Tls, cuts: list[int], seed: int) -> None:
    chance = random.Random(seed)
    pair = Pair(tls, ssl.TLSVersion.TLSv1_3)
    messages = [chance.randbytes(chance.choice((1, 100, RECORD_BYTES, 40_000))) for _ in range(5)]
    cipher = pair.peer.write(*messages)
    got = bytearray()
    at = 0
    while at < len(cipher):
        size = cuts[at % len(cuts)]
        got += pair.decrypt(cipher[at : at + size])
        at += size
    assert bytes(got) == b"".join(messages)


@pytest.mark.parametrize(
    "size",
    [0, 1, STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, RECORD_BYTES, RECORD_BYTES + 1, 5 * RECORD_BYTES + 3],
)
def test_every_size_arrives_as_it_was_written(tls: Tls, version: ssl.TLSVersion, size: int) -> None:
    pair = Pair(tls, version)
    data = random.Random(size).randbytes(size)
    assert pair.peer.read(pair.ours.encrypt(data)) == data


def test_a_record_that_is_half_here_gives_nothing_yet(tls: Tls) -> None:
    pair = Pair(tls, ssl.TLSVersion.TLSv1_2)
    cipher = pair.peer.write(b"x" * 1000)
    assert pair.decrypt(cipher[:999]) == b""
    assert pair.decrypt(cipher[999:]) == b"x" * 1000


def test_a_full_buffer_behind_a_half_record_still_fits(tls: Tls) -> None:
    pair = Pair(tls, ssl.TLSVersion.TLSv1_3)
    cipher = pair.peer.write(*(bytes(RECORD_BYTES) for _ in range(5)))
    pair.plain = memoryview(bytearray(65536 + 2 * RECORD_BYTES))
    first = len(cipher) - 65536
    assert 0 < first < RECORD_BYTES + 200
    assert len(pair.decrypt(cipher[:first])) + len(pair.decrypt(cipher[first:])) == 5 * RECORD_BYTES


def test_what_comes_before_close_notify_is_given_and_what_comes_after_is_not(
    tls: Tls, version: ssl.TLSVersion
) -> None:
    pair = Pair(tls, version)
    cipher = pair.peer.write(b"last")
    with pytest.raises(ssl.SSLWantReadError):
        pair.peer.tls.unwrap()
    cipher += pair.peer.outgoing.read() + b"\x17\x03\x03\x00\x05noise"
    assert pair.decrypt(cipher) == b"last"
    assert pair.ours.peer_ended
    assert pair.ours.damage is None
    assert pair.decrypt(b"more noise") == b""


def test_after_our_own_end_the_peer_is_still_decrypted(tls: Tls, version: ssl.TLSVersion) -> None:
    pair = Pair(tls, version)
    pair.peer.read(pair.ours.end())
    cipher = pair.peer.write(b"what was still to be said")
    pair.peer.tls.unwrap()
    cipher += pair.peer.outgoing.read()
    assert pair.decrypt(cipher) == b"what was still to be said"
    assert pair.ours.peer_ended
    assert pair.ours.damage is None


def test_our_own_end_is_a_close_notify_and_the_second_one_says_nothing(
    tls: Tls, version: ssl.TLSVersion
) -> None:
    pair = Pair(tls, version)
    pair.peer.incoming.write(pair.ours.end())
    assert pair.peer.tls.read(1) == b"", "an end in order is no error"
    assert pair.ours.end() == b""


def test_a_damaged_record_is_kept_as_damage_and_everything_after_it_is_dropped(tls: Tls) -> None:
    pair = Pair(tls, ssl.TLSVersion.TLSv1_3)
    good, bad, later = (pair.peer.write(word) for word in (b"good", b"bad", b"later"))
    assert pair.decrypt(good + bad[:-1] + bytes([bad[-1] ^ 1]) + later) == b"good"
    assert pair.ours.damage is not None
    assert pair.ours.damage.reason == "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"
    assert pair.decrypt(later) == b""
    assert pair.ours.take(), "the alert for the peer"


def test_one_ticket_record_follows_a_tls_1_3_handshake(tls: Tls) -> None:
    ours, peer = TlsEngine(tls.our_server(), None), Peer(tls.their_client(), HUB)
    peer.shake_hands(b"")
    assert not ours.shake_hands(memoryview(peer.outgoing.read()))
    assert peer.shake_hands(ours.take())
    assert ours.shake_hands(memoryview(peer.outgoing.read()))
    tickets = ours.take()
    assert len(tickets) == 5 + int.from_bytes(tickets[3:5], "big"), "one record, not OpenSSL's two"


def test_encrypting_after_our_own_end_is_kept_as_damage(tls: Tls) -> None:
    pair = Pair(tls, ssl.TLSVersion.TLSv1_3)
    pair.ours.end()
    assert pair.ours.encrypt(b"too late") == b""
    assert pair.ours.damage is not None


def test_a_handshake_that_fails_raises_and_leaves_an_alert_to_send(tls: Tls) -> None:
    engine = TlsEngine(tls.our_server(), None)
    with pytest.raises(ssl.SSLError):
        engine.shake_hands(memoryview(b"GET / HTTP/1.1\r\n\r\n"))
    other = TlsEngine(tls.our_server(), None)
    with pytest.raises(ssl.SSLError):
        other.shake_hands(memoryview(b"\x16\x03\x01\x00\x04\x01\x00\x00\x00"))
    assert other.take()[0] == 0x15, "an alert record"
