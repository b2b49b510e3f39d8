"""What gatewayd tells systemd: sd_notify over the datagram socket the manager named. No library, no thread.

Without a socket (a shell, a container without systemd) every call does nothing and answers False. The variables are
taken out of the environment, so that a child process cannot speak in our name. Time is an argument: systemd wants
CLOCK_MONOTONIC, which is what `Clock.monotonic` reads on Linux.

A send waits for a bounded moment only: a manager that does not read must not hold up the loop.
"""

from __future__ import annotations

import socket
from collections.abc import MutableMapping

# A datagram to the manager is taken within microseconds; past this the manager is in trouble of its own.
SEND_SECONDS = 0.2

# systemd's own limit on one notification is a page; a status line is for people.
STATUS_LENGTH = 512


class Notifier:
    """Messages to the service manager. Each answers whether the manager got it."""

    __slots__ = ("_address", "_socket")

    def __init__(self, address: str | None) -> None:
        """`address` as in $NOTIFY_SOCKET: a path, or a name after "@" in the abstract namespace."""
        self._socket: socket.socket | None = None
        self._address = ""
        # systemd also knows "vsock:" for virtual machines that speak to their host; a service never gets it.
        if address is not None and address[:1] in {"/", "@"}:
            self._address = "\0" + address[1:] if address[0] == "@" else address
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.settimeout(SEND_SECONDS)

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> Notifier:
        """The notifier this process was given; takes the variable out of `environ`."""
        return cls(environ.pop("NOTIFY_SOCKET", None))

    def ready(self, status: str = "") -> bool:
        """Start or reload is complete."""
        return self._tell("READY=1", status)

    def reloading(self, now: float) -> bool:
        """A reload begins at monotonic `now`; `ready` ends it, also when the new configuration was refused."""
        return self._tell(f"RELOADING=1\nMONOTONIC_USEC={int(now * 1_000_000)}")

    def stopping(self, status: str = "") -> bool:
        """The drain begins."""
        return self._tell("STOPPING=1", status)

    def status(self, status: str) -> bool:
        """One line for `systemctl status`."""
        return self._tell("", status)

    def alive(self) -> bool:
        """Feed the watchdog."""
        return self._tell("WATCHDOG=1")

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, assignment: str, status: str = "") -> bool:
        if self._socket is None:
            return False
        # A newline would begin another assignment.
        line = " ".join(status.split())[:STATUS_LENGTH]
        message = "\n".join(part for part in (assignment, f"STATUS={line}" if line else "") if part)
        if not message:
            return False
        try:
            self._socket.sendto(message.encode(), self._address)
        except OSError:
            return False
        return True


def watchdog_seconds(environ: MutableMapping[str, str], pid: int) -> float | None:
    """How long systemd waits for a sign of life from this process; None when it does not watch it.

    Takes the variables out of `environ`. A value that is not a number is no watchdog.
    """
    microseconds = environ.pop("WATCHDOG_USEC", "")
    watched = environ.pop("WATCHDOG_PID", "")
    if not microseconds.isdigit() or int(microseconds) == 0:
        return None
    if watched and watched != str(pid):
        return None
    return int(microseconds) / 1_000_000
