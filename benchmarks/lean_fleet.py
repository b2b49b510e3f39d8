"""Devices that cost next to nothing: TLS and just enough MQTT to publish with QoS 1, one unacknowledged message each.

One loop over epoll, one `ssl` socket for each device, packets made ahead; it shares no code with what it loads. A
message leaves at its own instant, every `1 / rate` seconds, from the device that has been idle longest; when none is
idle it waits, and the run says so (`late`). With rate 0 every device publishes again as soon as it may.

    python -m benchmarks.lean_fleet PLAN.json

obeys lines of JSON on stdin and answers each with one: {"connect": true}; {"first": number of the first message,
"messages": n, "rate": r, "times": file}, which also writes for each message when it left and when its receipt came.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import select
import socket
import ssl
import sys
import time
from array import array
from collections import deque
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

PAYLOAD_BYTES: Final = 256
NUMBER_BYTES: Final = 8  # of the payload: which message it is
DAY: Final = 86_400
# Nothing answered for so long means that it never will.
PATIENCE_SECONDS: Final = 30.0
LATE_SECONDS: Final = 0.01

_PUBACK: Final = b"\x40\x02"


def connect_packet(client_id: str, username: str, password: str) -> bytes:
    """CONNECT without a will, clean session 0, no keep-alive."""
    body = b"\x00\x04MQTT\x04\xc0\x00\x00" + b"".join(map(_text, (client_id, username, password)))
    return b"\x10" + _length(len(body)) + body


def publish_packet(topic: str) -> tuple[bytes, bytes]:
    """PUBLISH with QoS 1 up to its packet id, and what follows the message's number."""
    name = _text(topic)
    return b"\x32" + _length(len(name) + 2 + PAYLOAD_BYTES) + name, bytes(PAYLOAD_BYTES - NUMBER_BYTES)


def _text(text: str) -> bytes:
    return len(text.encode()).to_bytes(2, "big") + text.encode()


def _length(value: int) -> bytes:
    encoded = b""
    while value >= 0x80:
        encoded += bytes((value & 0x7F | 0x80,))
        value >>= 7
    return encoded + bytes((value,))


def token(hub: str, device: str, key: str) -> str:
    """A SAS token of a day."""
    audience, expiry = quote(f"{hub}/devices/{device}", safe=""), int(time.time()) + DAY
    digest = hmac.digest(base64.b64decode(key), f"{audience}\n{expiry}".encode(), hashlib.sha256)
    return f"SharedAccessSignature sr={audience}&sig={quote(base64.b64encode(digest), safe='')}&se={expiry}"


class Device:
    """One connection; at most one message is under way."""

    __slots__ = ("head", "message", "packet_id", "received", "sock", "tail")

    def __init__(self, name: str, key: str, plan: dict[str, Any], context: ssl.SSLContext) -> None:
        self.head, self.tail = publish_packet(
            f"devices/{name}/messages/events/%24.ct=application%2Fjson&%24.ce=utf-8"
        )
        self.packet_id = 0
        self.message = -1  # the one under way
        self.received = b""
        raw = socket.create_connection((plan["host"], plan["port"]), timeout=PATIENCE_SECONDS)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = context.wrap_socket(raw, server_hostname=plan["host"])
        username = f"{plan['hub']}/{name}/?api-version=2019-10-01"
        self.sock.sendall(connect_packet(name, username, token(plan["hub"], name, key)))
        answer = self.sock.recv(4)
        if answer != b"\x20\x02\x00\x00" and answer != b"\x20\x02\x01\x00":
            raise RuntimeError(f"{name} was answered {answer!r}")
        self.sock.setblocking(False)

    def send(self, number: int) -> None:
        self.message = number
        self.packet_id = self.packet_id % 0xFFFF + 1
        packet = (
            self.head + self.packet_id.to_bytes(2, "big") + number.to_bytes(NUMBER_BYTES, "big") + self.tail
        )
        if self.sock.send(packet) != len(packet):
            raise RuntimeError("the kernel does not take one packet")

    def take(self) -> bool:
        """Read; whether the receipt of the message under way is here."""
        try:
            data = self.sock.recv(4096)
        except ssl.SSLWantReadError:
            return False
        if not data:
            raise RuntimeError("the connection ended")
        self.received += data
        if len(self.received) < 4:
            return False
        if self.received != _PUBACK + self.packet_id.to_bytes(2, "big"):
            raise RuntimeError(f"{self.received!r} came instead of one receipt")
        self.received = b""
        return True


class Fleet:
    """All devices of one run."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.maximum_version = ssl.TLSVersion.TLSv1_2  # as the Python SDK
        self._context.load_verify_locations(plan["authority"])
        self._poll = select.epoll()
        self._devices: dict[int, Device] = {}

    def connect(self) -> dict[str, Any]:
        for name, key in self._plan["keys"].items():
            device = Device(name, key, self._plan, self._context)
            self._devices[device.sock.fileno()] = device
            self._poll.register(device.sock, select.EPOLLIN)
        return {"connected": len(self._devices)}

    def publish(self, first: int, messages: int, rate: float, times: str) -> dict[str, Any]:
        """`messages`, numbered from `first`; how long it took, and how many left over 10 ms late."""
        left, receipted = array("d", bytes(8 * messages)), array("d", bytes(8 * messages))
        idle = deque(self._devices.values())
        clock, pause = time.monotonic, 1.0 / rate if rate else 0.0
        sent = done = late = 0
        began = heard = now = clock()
        while done < messages:
            while sent < messages and idle and now >= began + sent * pause:
                late += bool(rate) and now - (began + sent * pause) > LATE_SECONDS
                left[sent] = clock()
                idle.popleft().send(first + sent)
                sent += 1
                now = clock()
            wait = max(0.0, began + sent * pause - now) if sent < messages and idle else 1.0
            # epoll counts in milliseconds, select in microseconds: messages leave one by one, not in little bursts.
            if wait < 0.05:
                select.select([self._poll], [], [], wait)
                wait = 0.0
            for descriptor, _ in self._poll.poll(wait):
                device = self._devices[descriptor]
                if device.take():
                    receipted[device.message - first] = heard = clock()
                    done += 1
                    idle.append(device)
            now = clock()
            if now - heard > PATIENCE_SECONDS:
                raise RuntimeError(f"{sent - done} messages without a receipt for {PATIENCE_SECONDS:g} s")
        with Path(times).open("wb") as file:
            left.tofile(file)
            receipted.tofile(file)
        return {"seconds": heard - began, "late": late}


def main() -> None:
    fleet = Fleet(json.loads(Path(sys.argv[1]).read_text(encoding="ascii")))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "connect" in order:
            print(json.dumps(fleet.connect()), flush=True)
        else:
            print(json.dumps(fleet.publish(**order)), flush=True)


if __name__ == "__main__":
    main()
