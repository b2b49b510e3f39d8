"""The kinds of value a configuration may hold: how each is written, what is allowed, how it is shown again.

A kind sits in the annotation of a field, beside the Python type the rest of gatewayd sees. pydantic asks it to read the
raw value; the reference in docs/configuration.md and every error message ask it what is allowed. So a bound is written
once. Units are required where a number alone would be a guess: "60m", not 60.

A kind reads what was written and nothing else: whether a file exists or two values fit together is judged elsewhere.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

DURATION_UNITS: Mapping[str, float] = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
SIZE_UNITS: Mapping[str, int] = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

# The longest text form of a DNS name, RFC 1035 section 2.3.4 less the final dot.
HOSTNAME_LENGTH = 253

CREDENTIAL_PREFIX = "credential:"
UNIX_PREFIX = "unix:"
# unix(7): sun_path has 108 bytes, the last one a NUL.
UNIX_PATH_BYTES = 107
# Where systemd puts the credentials of a unit of this name; $CREDENTIALS_DIRECTORY says so inside the unit.
CREDENTIALS_OF_THE_UNIT = Path("/run/credentials/gatewayd.service")

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s?([A-Za-z]+)")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a written value may refer to: the folder of the configuration file and the folder of credentials."""

    folder: Path = Path()
    credentials: Path = CREDENTIALS_OF_THE_UNIT


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and a port. `str()` is the way it is written in the configuration."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """A socket in the file system. `str()` is the way it is written in the configuration."""

    path: Path

    def __str__(self) -> str:
        return f"{UNIX_PREFIX}{self.path}"

    @property
    def is_loopback(self) -> bool:
        """Only this machine can reach it, and of its users only those the file's mode lets in."""
        return True


class NotAllowed(ValueError):
    """A written value that its kind does not accept: what is wrong with it."""


class Kind:
    """What all kinds share: how pydantic calls them and how a refusal becomes an error with what is allowed."""

    __slots__ = ()

    def read(self, written: object, surroundings: Surroundings) -> object:
        """The value meant by what was written; NotAllowed when there is none."""
        raise NotImplementedError

    def show(self, value: Any) -> str:
        """The value as an operator would write it in TOML."""
        return f'"{value}"'

    @property
    def allowed(self) -> str:
        """What may be written, in words."""
        raise NotImplementedError

    @property
    def schema(self) -> JsonSchemaValue:
        """What may be written, as far as JSON Schema can say it."""
        return {"type": "string"}

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(self._validated)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {**self.schema, "allowed": self.allowed}

    def _validated(self, written: object, info: core_schema.ValidationInfo) -> object:
        surroundings = info.context if isinstance(info.context, Surroundings) else Surroundings()
        try:
            return self.read(written, surroundings)
        except NotAllowed as refusal:
            # The texts travel as context, because a message is a template and the written text may hold braces.
            raise PydanticCustomError(
                "not_allowed", "{problem}", {"problem": str(refusal), "allowed": self.allowed}
            ) from refusal


@dataclass(frozen=True, slots=True)
class Duration(Kind):
    """A length of time, such as "60m" or "1.5h"; seconds as a float inside gatewayd."""

    at_least: str
    at_most: str

    def read(self, written: object, surroundings: Surroundings) -> float:
        seconds = duration(written)
        if not duration(self.at_least) <= seconds <= duration(self.at_most):
            raise NotAllowed(f"{written} is out of bounds")
        return seconds

    def show(self, value: Any) -> str:
        return f'"{duration_text(value)}"'

    @property
    def allowed(self) -> str:
        return f'a duration with its unit (ms, s, m, h, d) from "{self.at_least}" to "{self.at_most}"'


@dataclass(frozen=True, slots=True)
class Size(Kind):
    """A number of bytes, such as "512MiB"; an int inside gatewayd."""

    at_least: str
    at_most: str

    def read(self, written: object, surroundings: Surroundings) -> int:
        size = size_in_bytes(written)
        if not size_in_bytes(self.at_least) <= size <= size_in_bytes(self.at_most):
            raise NotAllowed(f"{written} is out of bounds")
        return size

    def show(self, value: Any) -> str:
        unit = next(unit for unit in reversed(tuple(SIZE_UNITS)) if value % SIZE_UNITS[unit] == 0)
        return f'"{value // SIZE_UNITS[unit]}{unit}"'

    @property
    def allowed(self) -> str:
        return f'a size with its unit (B, KiB, MiB, GiB) from "{self.at_least}" to "{self.at_most}"'


@dataclass(frozen=True, slots=True)
class Whole(Kind):
    """A count of something, named by `what`."""

    at_least: int
    at_most: int
    what: str

    def read(self, written: object, surroundings: Surroundings) -> int:
        if not isinstance(written, int) or isinstance(written, bool):
            raise NotAllowed(f"{_quoted(written)} is not a whole number")
        if not self.at_least <= written <= self.at_most:
            raise NotAllowed(f"{written} is out of bounds")
        return written

    def show(self, value: Any) -> str:
        return str(value)

    @property
    def allowed(self) -> str:
        return f"{self.what}: a whole number from {self.at_least} to {self.at_most}"

    @property
    def schema(self) -> JsonSchemaValue:
        return {"type": "integer", "minimum": self.at_least, "maximum": self.at_most}


@dataclass(frozen=True, slots=True)
class Flag(Kind):
    """Yes or no."""

    def read(self, written: object, surroundings: Surroundings) -> bool:
        if not isinstance(written, bool):
            raise NotAllowed(f"{_quoted(written)} is not true or false")
        return written

    def show(self, value: Any) -> str:
        return "true" if value else "false"

    @property
    def allowed(self) -> str:
        return "true or false"

    @property
    def schema(self) -> JsonSchemaValue:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Fraction(Kind):
    """A share of one, such as 0.70."""

    at_least: float
    at_most: float

    def read(self, written: object, surroundings: Surroundings) -> float:
        if not isinstance(written, int | float) or isinstance(written, bool):
            raise NotAllowed(f"{_quoted(written)} is not a number")
        if not self.at_least <= written <= self.at_most:  # refuses nan, which TOML can write
            raise NotAllowed(f"{written} is out of bounds")
        return float(written)

    def show(self, value: Any) -> str:
        return f"{value:.2f}"

    @property
    def allowed(self) -> str:
        return f"a share from {self.at_least} to {self.at_most}"

    @property
    def schema(self) -> JsonSchemaValue:
        return {"type": "number", "minimum": self.at_least, "maximum": self.at_most}


@dataclass(frozen=True, slots=True)
class Choice(Kind):
    """One of a few words. `later` holds words that are known and not in this version, to say just that."""

    words: tuple[str, ...]
    later: tuple[str, ...] = ()

    def read(self, written: object, surroundings: Surroundings) -> str:
        if isinstance(written, str) and written in self.words:
            return written
        if written in self.later:
            raise NotAllowed(f"{_quoted(written)} is not in this version")
        raise NotAllowed(f"{_quoted(written)} is not known")

    @property
    def allowed(self) -> str:
        return " or ".join(f'"{word}"' for word in self.words)

    @property
    def schema(self) -> JsonSchemaValue:
        return {"enum": list(self.words)}


@dataclass(frozen=True, slots=True)
class Hostname(Kind):
    """The name of a hub: no scheme and no port. An IPv4 address is let pass for an emulator on the desk."""

    def read(self, written: object, surroundings: Surroundings) -> str:
        if not isinstance(written, str) or not written:
            raise NotAllowed(f"{_quoted(written)} is not a host name")
        if "://" in written or ":" in written or "/" in written:
            raise NotAllowed(f"{_quoted(written)} is more than a host name; leave out scheme, port and path")
        if not _is_hostname(written):
            raise NotAllowed(f"{_quoted(written)} is not a host name")
        return written

    @property
    def allowed(self) -> str:
        return 'a DNS name, such as "contoso.azure-devices.net"'


@dataclass(frozen=True, slots=True)
class Address(Kind):
    """A host and a port. Where gatewayd listens the host is an address, because a name may stand for several, and port
    0 is allowed: the system chooses one.
    """

    listens: bool

    def read(self, written: object, surroundings: Surroundings) -> Endpoint:
        if not isinstance(written, str):
            raise NotAllowed(f"{_quoted(written)} is not an address")
        host, colon, port = written.rpartition(":")
        if not colon or not port.isascii() or not port.isdigit():
            raise NotAllowed(f"{_quoted(written)} has no port")
        bracketed = host.startswith("[") and host.endswith("]")
        host = host[1:-1] if bracketed else host
        if not (_is_address(host) if bracketed else _is_hostname(host)):
            raise NotAllowed(f"{_quoted(written)} has no host before the port")
        if self.listens and not _is_address(host):
            raise NotAllowed(f"{_quoted(written)} has a name where gatewayd listens")
        if not (0 if self.listens else 1) <= int(port) <= 65535:
            raise NotAllowed(f"port {port} is out of bounds")
        return Endpoint(host, int(port))

    @property
    def allowed(self) -> str:
        lowest = "0 to 65535, 0 lets the system choose" if self.listens else "1 to 65535"
        host = "IPv4 address" if self.listens else "host"
        return f'"{host}:port" or "[IPv6 address]:port", port {lowest}'


@dataclass(frozen=True, slots=True)
class StatusAddress(Kind):
    """Where people and scrapers come: a host and a port, or a socket in the file system."""

    def read(self, written: object, surroundings: Surroundings) -> Endpoint | UnixSocket:
        if not isinstance(written, str) or not written.startswith(UNIX_PREFIX):
            return _TCP.read(written, surroundings)
        path = written.removeprefix(UNIX_PREFIX)
        if not path.startswith("/") or path.endswith("/") or "\0" in path:
            raise NotAllowed(f"{_quoted(written)} is not the absolute path of a socket")
        if len(path.encode()) > UNIX_PATH_BYTES:
            raise NotAllowed(f"{_quoted(written)} is longer than a socket's path may be")
        return UnixSocket(Path(path))

    @property
    def allowed(self) -> str:
        return f'{_TCP.allowed}; or "{UNIX_PREFIX}/path" of at most {UNIX_PATH_BYTES} bytes'


_TCP = Address(listens=True)


@dataclass(frozen=True, slots=True)
class HttpProxy(Kind):
    """An HTTP proxy as "http://host:port"; an Endpoint inside gatewayd.

    A value with an "@" is not repeated in an error: people write passwords into such URLs.
    """

    def read(self, written: object, surroundings: Surroundings) -> Endpoint:
        if not isinstance(written, str) or "://" not in written:
            raise NotAllowed("the proxy is not a URL")
        scheme, _, place = written.partition("://")
        if scheme.lower() != "http":
            raise NotAllowed("a proxy is spoken to in plain HTTP, and TLS to the hub runs through it")
        if "@" in place:
            raise NotAllowed("a user and a password do not stand here; put them into hub.proxy_credentials")
        endpoint = Address(listens=False).read(place.removesuffix("/"), surroundings)
        assert isinstance(endpoint, Endpoint)
        return endpoint

    def show(self, value: Any) -> str:
        return f'"http://{value}"'

    @property
    def allowed(self) -> str:
        return '"http://host:port", port 1 to 65535'


@dataclass(frozen=True, slots=True)
class File(Kind):
    """A path; a relative one starts at the configuration file. "credential:NAME" is a systemd credential."""

    def read(self, written: object, surroundings: Surroundings) -> Path:
        if not isinstance(written, str) or not written or "\0" in written:
            raise NotAllowed(f"{_quoted(written)} is not a path")
        if not written.startswith(CREDENTIAL_PREFIX):
            return surroundings.folder / written
        name = written.removeprefix(CREDENTIAL_PREFIX)
        if not name or "/" in name or name in {".", ".."}:
            raise NotAllowed(f"{_quoted(written)} does not name a credential")
        return surroundings.credentials / name

    @property
    def allowed(self) -> str:
        return f'a path, or "{CREDENTIAL_PREFIX}NAME" for a credential that systemd hands over'


def duration(written: object) -> float:
    """Seconds meant by a text such as "60m"; NotAllowed without a unit."""
    number, unit = _quantity(written, DURATION_UNITS, "a duration")
    return float(number) * DURATION_UNITS[unit]


def size_in_bytes(written: object) -> int:
    """Bytes meant by a text such as "512MiB"; NotAllowed without a unit or for a part of a byte."""
    number, unit = _quantity(written, SIZE_UNITS, "a size")
    size = float(number) * SIZE_UNITS[unit]
    if not size.is_integer():
        raise NotAllowed(f"{_quoted(written)} is not a whole number of bytes")
    return int(size)


def duration_text(seconds: float) -> str:
    """A length of time in the largest unit in which it is a whole number: 3600.0 is "1h", 90.0 is "90s"."""
    milliseconds = round(seconds * 1000)
    for unit in ("d", "h", "m", "s"):
        length = round(DURATION_UNITS[unit] * 1000)
        if milliseconds and milliseconds % length == 0:
            return f"{milliseconds // length}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0s"


def _quantity(written: object, units: Mapping[str, object], what: str) -> tuple[str, str]:
    if isinstance(written, int | float) and not isinstance(written, bool):
        raise NotAllowed(f"{written} has no unit")
    if not isinstance(written, str):
        raise NotAllowed(f"{_quoted(written)} is not {what}")
    match = _QUANTITY.fullmatch(written)
    if match is None:
        raise NotAllowed(f"{_quoted(written)} is not {what}")
    number, unit = match.groups()
    if unit not in units:
        raise NotAllowed(f"{_quoted(written)} has an unknown unit {unit!r}")
    return number, unit


def _is_hostname(text: str) -> bool:
    return 0 < len(text) <= HOSTNAME_LENGTH and all(_LABEL.fullmatch(label) for label in text.split("."))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _quoted(written: object) -> str:
    """What was written, cut short: an error names the value, it does not repeat a page."""
    text = f'"{written}"' if isinstance(written, str) else repr(written)
    return text if len(text) <= 60 else text[:57] + "..."
