"""A hub that costs next to nothing: TLS, and just enough MQTT to let everybody in and acknowledge every message.

The emulated hub checks tokens, keeps a ledger and costs 88 µs a message; this one checks nothing and costs a fifth, so
that what stands before it is what saturates. One loop over epoll, `ssl` sockets, no code of what it judges.

    python -m benchmarks.lean_hub PLAN.json

prints {"ready": true} when it listens on the plan's `host` and `port` with its `certificate`. Each line {"times": file}
on stdin makes it write for each message number seen since the last one when it came and when it was answered, and
say how many came and how many connections there are.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import ssl
import sys
import time
from array import array
from pathlib import Path
from typing import Any, Final

HANDSHAKE_SECONDS: Final = 10.0
CONNECT, PUBLISH, PUBACK, SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT = 1, 3, 4, 8, 10, 12, 14


class Peer:
    """One connection."""

    __slots__ = ("received", "sock")

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self.sock = sock
        self.received = b""


class Hub:
    """Accepts, answers, and remembers times."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.maximum_version = ssl.TLSVersion.TLSv1_2  # as IoT Hub
        self._context.load_cert_chain(plan["certificate"])
        self._listener = socket.create_server((plan["host"], plan["port"]), backlog=1024)
        self._poll = select.epoll()
        self._peers: dict[int, Peer] = {}
        self._came: dict[int, float] = {}
        self._answered: dict[int, float] = {}
        self._messages = 0

    def serve(self) -> None:
        """Until stdin ends."""
        self._poll.register(self._listener, select.EPOLLIN)
        self._poll.register(0, select.EPOLLIN)
        listening = self._listener.fileno()
        print(json.dumps({"ready": True}), flush=True)
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == listening:
                    self._accept()
                elif descriptor == 0:
                    line = os.read(0, 65536)
                    if not line:
                        return
                    self._report(json.loads(line)["times"])
                else:
                    self._read(descriptor)

    def _accept(self) -> None:
        raw, _ = self._listener.accept()
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.settimeout(HANDSHAKE_SECONDS)
        try:
            sock = self._context.wrap_socket(raw, server_side=True)
        except OSError:  # such as a peer that went away: it dials again
            raw.close()
            return
        sock.setblocking(False)
        self._peers[sock.fileno()] = Peer(sock)
        self._poll.register(sock, select.EPOLLIN)

    def _read(self, descriptor: int) -> None:
        peer = self._peers[descriptor]
        try:
            data = peer.sock.recv(65536)
            over = not data or self._take(peer, data)
        except ssl.SSLWantReadError:
            return
        except OSError:
            over = True
        if over:
            del self._peers[descriptor]
            self._poll.unregister(descriptor)
            peer.sock.close()

    def _take(self, peer: Peer, data: bytes) -> bool:
        """Answer every whole packet, all in one record; whether the peer said DISCONNECT."""
        came = time.monotonic()
        data, at, over = peer.received + data, 0, False
        answers: list[bytes] = []
        numbers: list[int] = []
        while (found := frame(data, at)) is not None:
            start, end = found
            kind = data[at] >> 4
            if kind == PUBLISH:
                start += 2 + int.from_bytes(data[start : start + 2], "big")
                if data[at] & 0x06:
                    answers.append(b"\x40\x02" + data[start : start + 2])
                    start += 2
                numbers.append(int.from_bytes(data[start : start + 8], "big"))
            elif kind == CONNECT:
                answers.append(b"\x20\x02\x00\x00")
            elif kind == SUBSCRIBE:
                answers.append(_suback(data[start:end]))
            elif kind == UNSUBSCRIBE:
                answers.append(b"\xb0\x02" + data[start : start + 2])
            elif kind == PINGREQ:
                answers.append(b"\xd0\x00")
            elif kind == DISCONNECT:
                over = True
            elif kind != PUBACK:
                raise RuntimeError(f"a packet of type {kind} came")
            at = end
        peer.received = data[at:]
        if answers:
            peer.sock.send(b"".join(answers))
        if numbers:
            answered = time.monotonic()
            for number in numbers:
                self._came[number] = came
                self._answered[number] = answered
            self._messages += len(numbers)
        return over

    def _report(self, file: str) -> None:
        with Path(file).open("wb") as out:
            for times in (self._came, self._answered):
                array("d", (times[number] for number in sorted(times))).tofile(out)
        seen = {"messages": self._messages, "distinct": len(self._came), "connections": len(self._peers)}
        print(json.dumps(seen), flush=True)
        self._came.clear()
        self._answered.clear()
        self._messages = 0


def frame(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the body of the packet at `at` starts and ends; None when it is not whole."""
    length = shift = 0
    start = at + 1
    while start < len(data):
        byte = data[start]
        start += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (start, start + length) if start + length <= len(data) else None
        shift += 7
    return None


def _suback(body: bytes) -> bytes:
    codes, at = [], 2
    while at < len(body):
        at += 2 + int.from_bytes(body[at : at + 2], "big")
        codes.append(min(body[at], 1))
        at += 1
    return bytes((0x90, 2 + len(codes))) + body[:2] + bytes(codes)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Hub(json.loads(Path(sys.argv[1]).read_text(encoding="ascii"))).serve()
