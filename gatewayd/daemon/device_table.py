"""All devices as a table to page through: searched, filtered, sorted, a part of it at a time.

The status page and /api/devices must never slow a renewal down, so a part costs the same for ten devices and for ten
thousand as far as that can be: ids are sorted once, when the keys are loaded; a plain page looks up its own rows alone;
a filter or another order reads every session's state, at most once a second, and looks up no identity twice.
Nothing is copied but the rows that are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

from gatewayd.clock import Clock
from gatewayd.daemon.fleet_facts import DeviceError, DeviceFacts, DevicePage
from gatewayd.daemon.keyring import Keyring
from gatewayd.daemon.status_words import STATES
from gatewayd.flow.hub_sessions import HubSessions
from gatewayd.message import Identity
from gatewayd.upstream.session import IN_USE, HubSession, State

# Rows of one answer: a screen for people, a bound for scripts.
ROWS: Final = 50
MOST_ROWS: Final = 200
# The longest id is 128 + 1 + 128 characters.
LONGEST_SEARCH: Final = 257
LONGEST_QUERY: Final = 2048
# Far below anyone's patience; far above what a look costs.
LOOK_SECONDS: Final = 1.0

ORDERS: Final = ("id", "state", "expires", "error")


class BadQuery(ValueError):
    """A query that cannot be answered, in words for whoever wrote it."""


@dataclass(frozen=True, slots=True)
class DeviceQuery:
    """What is asked for. An empty word filters nothing."""

    search: str = ""
    state: str = ""
    cause: str = ""
    sort: str = "id"
    descending: bool = False
    offset: int = 0
    limit: int = ROWS

    @classmethod
    def parse(cls, text: str) -> DeviceQuery:
        """From the query of a URL; BadQuery names what is wrong."""
        if len(text) > LONGEST_QUERY:
            raise BadQuery(f"the query is longer than {LONGEST_QUERY} characters")
        words = dict(parse_qsl(text, keep_blank_values=True))
        if unknown := words.keys() - _WORDS:
            raise BadQuery(f"unknown: {', '.join(sorted(unknown))}; allowed: {', '.join(_WORDS)}")
        return cls(
            search=words.get("search", "").strip()[:LONGEST_SEARCH],
            state=_one_of("state", words.get("state", ""), ("", *STATES)),
            cause=words.get("cause", ""),
            sort=_one_of("sort", words.get("sort", "id"), ORDERS),
            descending=_one_of("order", words.get("order", "asc"), ("asc", "desc")) == "desc",
            offset=_whole("offset", words.get("offset", "0"), 0, 10_000_000),
            limit=_whole("limit", words.get("limit", str(ROWS)), 1, MOST_ROWS),
        )


class DeviceTable:
    """Answers queries from the rooms as they are now; changes nothing."""

    def __init__(
        self,
        keyring: Keyring,
        hub_sessions: HubSessions,
        clock: Clock,
        is_connected: Callable[[Identity], bool],
    ) -> None:
        self._keyring = keyring
        self._conductor = hub_sessions.conductor
        self._notes = hub_sessions.notes
        self._clock = clock
        self._is_connected = is_connected
        self._generation = -1
        self._ids: list[Identity] = []
        self._lowered: list[str] = []
        self._place: dict[Identity, int] = {}
        self._sessions: dict[HubSession[Identity], int] = {}  # and the row of its identity
        self._states = b""  # by row, as the last look found them
        self._looked: float | None = None

    def page(self, query: DeviceQuery) -> DevicePage:
        """The rows asked for."""
        self._index()
        now, wall = self._clock.monotonic(), self._clock.wall()
        rows = self._matching(query)
        rows = self._sorted(rows, query)
        end = query.offset + query.limit
        shown = rows[query.offset : end]
        return DevicePage(
            taken_at=wall,
            total=len(self._ids),
            matched=len(rows),
            offset=query.offset,
            devices=tuple(self._facts(self._ids[row], wall - now) for row in shown),
        )

    def _index(self) -> None:
        if self._generation == self._keyring.generation:
            return
        self._generation = self._keyring.generation
        self._ids = sorted(self._keyring.by_identity, key=str)
        self._lowered = [str(identity).lower() for identity in self._ids]
        self._place = {identity: row for row, identity in enumerate(self._ids)}
        self._sessions.clear()
        self._looked = None

    def _look(self) -> None:
        """Read every session's state, at most once a second. Only sessions that are new since then are looked up."""
        now = self._clock.monotonic()
        if self._looked is not None and now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        known, place = self._sessions.get, self._place
        self._sessions = {
            session: row
            for session in self._conductor.sessions()
            if (row := known(session, -1)) >= 0 or (row := place.get(session.identity, -1)) >= 0
        }
        states = bytearray(len(self._ids))  # State.ABSENT is 0
        for session, row in self._sessions.items():
            states[row] = session.state
        self._states = bytes(states)

    def _matching(self, query: DeviceQuery) -> Sequence[int]:
        rows: Sequence[int] = range(len(self._ids))
        if query.search:
            wanted = query.search.lower()
            rows = [row for row, text in enumerate(self._lowered) if wanted in text]
        if query.cause:
            standing = {
                self._place[identity]
                for identity, key in self._notes.standing.items()
                if key == query.cause and identity in self._place
            }
            rows = [row for row in rows if row in standing]
        if query.state:
            self._look()
            wanted_state = State[query.state.upper()]
            having = self._states.translate(_marks(lambda state: state == wanted_state))
            rows = [row for row in rows if having[row]]
        return rows

    def _sorted(self, rows: Sequence[int], query: DeviceQuery) -> Sequence[int]:
        """Stable, so equals stay in the order of their ids; who has no value comes last in both directions."""
        if query.sort == "id":
            return rows[::-1] if query.descending else rows
        if query.sort == "error":
            # The latest first, unless asked otherwise: who sorts by errors looks for what has just happened.
            errors = self._notes.errors
            at = {self._place[one]: -error.at for one, error in errors.items() if one in self._place}
            having = sorted((row for row in rows if row in at), key=at.__getitem__, reverse=query.descending)
            return having + [row for row in rows if row not in at]
        self._look()
        if query.sort == "state":
            # Trouble first: the states of an identity that is in trouble have the larger numbers.
            last = self._states.translate(_marks(lambda state: state == State.ABSENT))
            key: Callable[[int], float] = self._states.__getitem__
            descending = not query.descending
        else:
            last = self._states.translate(_marks(lambda state: state not in IN_USE))
            ends = [0.0] * len(self._ids)
            for session, row in self._sessions.items():
                ends[row] = session.expires
            key, descending = ends.__getitem__, query.descending
        having = [row for row in rows if not last[row]]
        having.sort(key=key, reverse=descending)
        return having + [row for row in rows if last[row]]

    def _facts(self, identity: Identity, offset: float) -> DeviceFacts:
        session = self._conductor.session(identity)
        state = State.ABSENT if session is None else session.state
        signed = expires = renews = None
        if session is not None and state in IN_USE:
            signed, expires = session.signed + offset, session.expires + offset
            renews = session.planned + offset
        error = self._notes.errors.get(identity)
        return DeviceFacts(
            id=str(identity),
            state=state.name.lower(),
            connected=self._is_connected(identity),
            signed=signed,
            expires=expires,
            renews=renews,
            error=None
            if error is None
            else DeviceError(
                error.at, error.key, error.words, error.remedy, identity in self._notes.standing
            ),
        )


_WORDS: Final = ("search", "state", "cause", "sort", "order", "offset", "limit")


def _marks(wanted: Callable[[int], bool]) -> bytes:
    """A table that turns the byte of a state into 1 where it is wanted, for bytes.translate."""
    return bytes(wanted(state) for state in range(256))


def _one_of(name: str, word: str, allowed: tuple[str, ...]) -> str:
    if word not in allowed:
        raise BadQuery(f"{name}: expected one of {', '.join(filter(None, allowed))}")
    return word


def _whole(name: str, word: str, least: int, most: int) -> int:
    if not (word.isascii() and word.isdigit() and len(word) <= 9 and least <= int(word) <= most):
        raise BadQuery(f"{name}: expected a whole number from {least} to {most}")
    return int(word)
