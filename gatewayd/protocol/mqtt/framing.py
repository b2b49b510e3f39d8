"""Where one packet ends and the next begins in a stream of bytes.

`PacketReader` keeps what has come, and gives packets one at a time as a first byte and a body. It judges what
the fixed header alone can tell (2.2): type and flags at the first byte, the remaining length as soon as it is
whole. So a packet over the limit is refused before its body is kept, and the verdict does not depend on how
the stream was cut.

Costs: bytes that hold whole packets are kept as they came and sliced; a packet in parts is gathered in one
bytearray, whose header is read once, so that the work per byte is constant however small the parts are.

A remaining length longer than it need be (80 00) is read as what it says: only MQTT 5 forbids it.
"""

from __future__ import annotations

from gatewayd.protocol.mqtt.faults import CloseCause, PeerFault
from gatewayd.protocol.mqtt.packets import illegal_first_byte
from gatewayd.protocol.mqtt.wire import LEGAL_FIRST_BYTES

_MAX_HEADER_BYTES = 5


class PacketReader:
    """Bytes in, whole packets out. `max_packet_bytes` counts the fixed header too and may be changed between
    packets.
    """

    __slots__ = ("_at", "_bytes", "_wanted", "is_spent", "max_packet_bytes")

    def __init__(self, max_packet_bytes: int) -> None:
        self.max_packet_bytes = max_packet_bytes
        self._bytes: bytes | bytearray = b""
        self._at = 0
        # How many unread bytes there must be before looking again is worth it.
        self._wanted = 1
        # No whole packet is here until more bytes are fed.
        self.is_spent = True

    @property
    def buffered(self) -> int:
        """How many bytes are kept."""
        return len(self._bytes) - self._at

    def feed(self, received: bytes | bytearray | memoryview) -> None:
        """Keeps a copy of `received`, unless it is immutable already."""
        self.is_spent = False
        if self._at == len(self._bytes):
            self._bytes = bytes(received)
            self._at = 0
            return
        kept = self._bytes
        if not isinstance(kept, bytearray):
            kept = self._bytes = bytearray(kept[self._at :])
        elif self._at:
            del kept[: self._at]
        self._at = 0
        kept += received

    def discard(self) -> None:
        """Forgets what is kept."""
        self._bytes = b""
        self._at = 0
        self.is_spent = True

    def next_packet(self) -> tuple[int, bytes] | None:
        """The next whole packet, or None when more bytes are needed. Raises PeerFault for an illegal
        header.
        """
        self.is_spent = True  # unless there are bytes behind a whole packet
        kept, at = self._bytes, self._at
        available = len(kept) - at
        if available < self._wanted:
            return None
        first_byte = kept[at]
        if first_byte not in LEGAL_FIRST_BYTES:
            error = illegal_first_byte(first_byte)
            raise PeerFault(error.problem, clause=error.clause)
        if available == 1:
            return None
        length = kept[at + 1]
        start = at + 2
        if length >= 0x80 and available > 2 and kept[at + 2] < 0x80:
            # The common long packet, up to 16,383 bytes; _read_long_length would say the same.
            length = length & 0x7F | kept[at + 2] << 7
            start = at + 3
        elif length >= 0x80:
            header = _read_long_length(kept, at)
            if header is None:
                return None
            length, start = header
        end = start + length
        if end - at > self.max_packet_bytes:
            raise PeerFault(
                f"a packet of {end - at} bytes, at most {self.max_packet_bytes} are taken",
                cause=CloseCause.TOO_LARGE,
            )
        if end > len(kept):
            self._wanted = end - at
            return None
        self._wanted = 1
        self._at = end
        if isinstance(kept, bytes):
            body = kept[start:end]
        else:
            with memoryview(kept) as view:
                body = bytes(view[start:end])
        if end == len(kept):
            self.discard()  # thousands of idle connections must not each keep their last packet
        else:
            self.is_spent = False
        return first_byte, body


def _read_long_length(kept: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """A remaining length of two to four bytes and where the body starts, or None when it is not whole yet."""
    length = 0
    for place in range(1, _MAX_HEADER_BYTES):
        if at + place >= len(kept):
            return None
        byte = kept[at + place]
        length |= (byte & 0x7F) << 7 * (place - 1)
        if byte < 0x80:
            return length, at + place + 1
    raise PeerFault("remaining length does not end within four bytes", clause="2.2.3")
