"""TLS of one connection without the connection: ciphertext in, plaintext out, and back.

A thin face over `ssl.SSLObject` and two memory BIOs that keeps two habits the rest relies on. Ciphertext passes through
the BIOs in small steps, because a BIO never gives memory back: the largest step ever taken stays with the connection
for life. And nothing is left in them: each call decrypts all that it was given, so plaintext never trails behind an
end of the stream.

It knows no socket, no owner and no time. Only `shake_hands` raises (ssl.SSLError); afterwards a fault of the peer is
found in `damage`.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import cast

# The largest plaintext of one TLS record (RFC 8446, 5.1).
RECORD_BYTES = 16384

# One step through a BIO: more than nearly every MQTT packet and most of a handshake flight. Measured on two engines
# after one message of 60 KB each way: steps of 4 KiB leave 6 KiB behind, of 16 KiB 75, of 64 KiB 239. In exchange bulk
# data is encrypted at half the speed of 16 KiB steps, still above 600 MB/s.
STEP_BYTES = 4096


class TlsEngine:
    """One TLS session in either role, from handshake to close_notify."""

    __slots__ = ("_incoming", "_outgoing", "_read_into", "damage", "must_answer", "peer_ended", "tls")

    def __init__(
        self, context: ssl.SSLContext, server_hostname: str | None, session: ssl.SSLSession | None = None
    ) -> None:
        """A client when `server_hostname` is given, else a server."""
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_hostname is None,
            server_hostname=server_hostname,
            session=session,
        )
        # With a buffer given, read returns a count.
        self._read_into = cast(Callable[[int, memoryview], int], self.tls.read)
        self.must_answer = False  # what was decrypted last makes TLS itself say something: see `take`
        self.peer_ended = False  # close_notify was read; nothing is decrypted any more
        self.damage: ssl.SSLError | None = None  # why nothing is decrypted or encrypted any more

    def shake_hands(self, cipher: memoryview) -> bool:
        """Go on with the handshake; True when it is done. Raises ssl.SSLError when it failed.

        What came behind the peer's Finished waits for `decrypt`. In every case `take` has something to send.
        """
        for start in range(0, max(len(cipher), 1), STEP_BYTES):
            self._incoming.write(cipher[start : start + STEP_BYTES])
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                continue
            self._incoming.write(cipher[start + STEP_BYTES :])
            return True
        return False

    def decrypt(self, cipher: memoryview, plain: memoryview) -> int:
        """Decrypt `cipher` into `plain`; how many bytes it came to.

        `plain` must have room for `cipher` and two records more: one may be half here from the last call, and OpenSSL
        is always offered room for a whole one.
        """
        filled = 0
        if len(cipher) <= STEP_BYTES:
            filled = self._decrypt_step(cipher, plain, 0)
        else:
            for start in range(0, len(cipher), STEP_BYTES):
                filled = self._decrypt_step(cipher[start : start + STEP_BYTES], plain, filled)
        self.must_answer = self._outgoing.pending > 0
        return filled

    def encrypt(self, data: bytes) -> bytes:
        """Ciphertext of `data`, behind anything TLS itself had to say; empty when there is `damage`."""
        try:
            if len(data) <= STEP_BYTES:
                self.tls.write(data)
                return self._outgoing.read()
            view, pieces = memoryview(data), []
            for start in range(0, len(data), STEP_BYTES):
                self.tls.write(view[start : start + STEP_BYTES])
                pieces.append(self._outgoing.read())
            return b"".join(pieces)
        except ssl.SSLError as error:
            self.damage = error
            return b""

    def end(self) -> bytes:
        """Ciphertext of our close_notify; nothing can be encrypted afterwards, but the peer can still be read."""
        try:
            self.tls.unwrap()
        except ssl.SSLError:
            # SSL_shutdown looks for the peer's close_notify too; that it is not here yet is no fault, and a peer who
            # broke the session before has no use for ours.
            return self.take()
        return self.take()

    def take(self) -> bytes:
        """What TLS itself has to say now: handshake, alerts. A key update is answered inside the next `encrypt`."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def _decrypt_step(self, cipher: memoryview, plain: memoryview, filled: int) -> int:
        incoming = self._incoming
        incoming.write(cipher)
        if self.peer_ended or self.damage is not None:
            incoming.read()
            return filled
        try:
            while incoming.pending:
                room = plain[filled:] if filled else plain
                got = self._read_into(len(room), room)
                if not got:
                    self.peer_ended = True
                    break
                filled += got
        except ssl.SSLWantReadError:
            return filled
        except ssl.SSLZeroReturnError:  # the same, once our own close_notify is said
            self.peer_ended = True
        except ssl.SSLError as error:
            self.damage = error
        return filled
