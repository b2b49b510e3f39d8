"""What the files named in a configuration hold: certificates, keys, devices, and whether the fleet fits the timetable.

Reads, judges, keeps nothing. A certificate's dates are judged only when the caller knows the time: a gateway that boots
in 1970 must start. Text of keys is wiped as far as Python holds it; a private key lives on inside OpenSSL only while it
is compared.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from gatewayd.credentials.device_file import open_device_file
from gatewayd.credentials.proxy_credentials import read_proxy_credentials
from gatewayd.credentials.secret_file import wipe
from gatewayd.daemon.config import Config
from gatewayd.daemon.status_token import ALLOWED as TOKEN_ALLOWED
from gatewayd.daemon.status_token import KEY as STATUS_TOKEN
from gatewayd.daemon.status_token import parse_token
from gatewayd.errors import ConfigError, ConfigProblem, DeviceFileError
from gatewayd.tokens.renewal_timetable import Feasibility, feasibility

# A chain with its key has some 10 KiB, the system's whole list of authorities 250 KiB.
MAX_PEM_BYTES = 4 << 20

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)

# Two working weeks to get a certificate renewed.
EXPIRY_WARNING = timedelta(days=14)


@dataclass(slots=True)
class Findings:
    """What was found. `problems` keep gatewayd from running, `warnings` do not."""

    problems: list[ConfigProblem] = field(default_factory=list)
    warnings: list[ConfigProblem] = field(default_factory=list)
    devices: int | None = None
    timetable: Feasibility | None = None


def inspect_files(
    config: Config, *, credentials: Path, wall: float | None, skip: Set[str] = frozenset()
) -> Findings:
    """Look into every file `config` names, except at the keys in `skip`.

    `credentials` is the folder systemd hands credentials over in: it guards them itself. `wall` is None while the
    time is not known.
    """
    findings = Findings()
    now = None if wall is None else datetime.fromtimestamp(wall, UTC)

    def asked(*keys: str) -> bool:
        return not any(key == wrong or key.startswith(wrong + ".") for key in keys for wrong in skip)

    def there(key: str, path: Path | None) -> bool:
        """False for a credential of a unit that is not running: only its start can judge it."""
        if path is None or path.parent != credentials or credentials.is_dir():
            return True
        problem = f"credential {path.name} is handed over when the unit starts; it is not judged now"
        findings.warnings.append(ConfigProblem(key, problem))
        return False

    hub, listener, devices = config.hub, config.listener, config.devices
    if hub.trusted_ca is not None and asked("hub.trusted_ca") and there("hub.trusted_ca", hub.trusted_ca):
        _authorities("hub.trusted_ca", hub.trusted_ca, now, findings)
    if asked("listener.certificate", "listener.private_key") and all(
        [
            there("listener.certificate", listener.certificate),
            there("listener.private_key", listener.private_key),
        ]
    ):
        _listener_certificate(config, credentials, now, findings)
    if (
        hub.proxy_credentials is not None
        and asked("hub.proxy_credentials")
        and there("hub.proxy_credentials", hub.proxy_credentials)
    ):
        _proxy_credentials(hub.proxy_credentials, credentials, findings)
    if asked("devices.file") and there("devices.file", devices.file):
        _devices("devices.file", devices.file, credentials, findings)
    if (
        config.metrics.token_file is not None
        and asked(STATUS_TOKEN)
        and there(STATUS_TOKEN, config.metrics.token_file)
    ):
        _status_token(config.metrics.token_file, credentials, findings)
    if asked("clock.floor_file"):
        _floor_file(config.clock.floor_file, findings)
    if asked("outbox.path"):
        _outbox(config.outbox.path, findings)
    if findings.devices is not None and asked(
        "tokens.lifetime", "tokens.renew_earliest", "tokens.renew_latest", "hub.budget"
    ):
        _timetable(config, findings)
    return findings


def _authorities(key: str, path: Path, now: datetime | None, findings: Findings) -> None:
    certificates = _certificates(key, path, findings)
    if now is not None and certificates and all(one.not_valid_after_utc < now for one in certificates):
        findings.problems.append(
            ConfigProblem(key, f"every certificate in {path} has expired", "an authority that is valid now")
        )


def _listener_certificate(
    config: Config, credentials: Path, now: datetime | None, findings: Findings
) -> None:
    key, path = "listener.certificate", config.listener.certificate
    certificates = _certificates(key, path, findings)
    key_in_file = "listener.private_key" if config.listener.private_key is not None else key
    key_path = config.listener.private_key or path
    public = _public_half(key_in_file, key_path, credentials, findings)
    if not certificates:
        return
    leaf = certificates[0]
    if now is not None:
        findings.problems += _not_valid(key, leaf, now)
        if now <= leaf.not_valid_after_utc < now + EXPIRY_WARNING:
            findings.warnings.append(
                ConfigProblem(key, f"expires on {leaf.not_valid_after_utc:%Y-%m-%d}", "a renewed certificate")
            )
    try:
        certified = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (UnsupportedAlgorithm, ValueError) as error:
        findings.problems.append(ConfigProblem(key, f"has a public key of an unknown kind: {error}"))
        return
    if public is not None and public != certified:
        findings.problems.append(
            ConfigProblem(
                key_in_file,
                f"the private key in {key_path} is not the key of the first certificate in {path}",
                "the gateway's own certificate first, then its chain, and the private key that belongs to it",
            )
        )


def _not_valid(key: str, leaf: x509.Certificate, now: datetime) -> Iterator[ConfigProblem]:
    if leaf.not_valid_after_utc < now:
        yield ConfigProblem(key, f"expired on {leaf.not_valid_after_utc:%Y-%m-%d}", "a renewed certificate")
    if leaf.not_valid_before_utc > now:
        yield ConfigProblem(
            key,
            f"is not valid before {leaf.not_valid_before_utc:%Y-%m-%d}",
            "a certificate that is valid now; is the clock right?",
        )


def _certificates(key: str, path: Path, findings: Findings) -> list[x509.Certificate]:
    text = _read(key, path, findings)
    if text is None:
        return []
    try:
        # Only the certificates are copied: a private key may stand beside them, and the copy cannot be wiped.
        return x509.load_pem_x509_certificates(b"\n".join(_CERTIFICATE.findall(text)))
    except ValueError:
        findings.problems.append(
            ConfigProblem(key, f"{path} holds no certificate", "a PEM file with certificates")
        )
        return []
    finally:
        wipe(text)


def _public_half(key: str, path: Path, credentials: Path, findings: Findings) -> bytes | None:
    """The public half of the private key in a file; None when there is no usable one."""
    text = _read(key, path, findings, secret="" if path.parent == credentials else "a private key")
    if text is None:
        return None
    try:
        private = load_pem_private_key(text, None)
    except TypeError:
        findings.problems.append(
            ConfigProblem(
                key, f"the private key in {path} asks for a password", "a key without password, mode 0600"
            )
        )
    except (ValueError, UnsupportedAlgorithm):
        findings.problems.append(
            ConfigProblem(
                key, f"{path} holds no private key", "a PEM file with the certificate's private key"
            )
        )
    else:
        return private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    finally:
        wipe(text)
    return None


def _read(key: str, path: Path, findings: Findings, *, secret: str = "") -> bytearray | None:
    """The bytes of a file, which the caller wipes; None and a problem when it cannot be had. One problem a file.

    `secret` says what is in it that others may not read.
    """
    try:
        # Not blocking: a named pipe is refused below instead of waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "is not a regular file")
            text = bytearray(min(status.st_size, MAX_PEM_BYTES))
            file.readinto(text)
    except OSError as error:
        problem = ConfigProblem(key, f"{path} cannot be read: {error.strerror}", "a file this user can read")
        if problem not in findings.problems:
            findings.problems.append(problem)
        return None
    # A group may read it: that is how distributions share certificates between daemons.
    if secret and status.st_mode & stat.S_IRWXO:
        findings.problems.append(
            ConfigProblem(
                key,
                f"{path} holds {secret} and has mode {stat.S_IMODE(status.st_mode):04o}",
                f"no access for others; run: chmod o-rwx {path}",
            )
        )
    return text


def _proxy_credentials(path: Path, credentials: Path, findings: Findings) -> None:
    try:
        read_proxy_credentials(path, check_permissions=path.parent != credentials)
    except ConfigError as error:
        findings.problems += [
            ConfigProblem("hub.proxy_credentials", f"{problem.path}: {problem.problem}", problem.allowed)
            for problem in error.problems
        ]


def _devices(key: str, path: Path, credentials: Path, findings: Findings) -> None:
    try:
        with open_device_file(path, check_permissions=path.parent != credentials) as file:
            count = 0
            for _, primary, secondary in file:
                wipe(primary)
                if secondary is not None:
                    wipe(secondary)
                count += 1
    except DeviceFileError as error:
        findings.problems += [
            ConfigProblem(key, f"{problem.path}: {problem.problem}", problem.allowed)
            for problem in error.problems
        ]
        return
    findings.devices = count
    if count == 0:
        findings.warnings.append(ConfigProblem(key, f"{path} lists no device", "at least one device"))


def _status_token(path: Path, credentials: Path, findings: Findings) -> None:
    text = _read(STATUS_TOKEN, path, findings, secret="a token" if path.parent != credentials else "")
    if text is None:
        return
    if parse_token(text) is None:
        findings.problems.append(ConfigProblem(STATUS_TOKEN, f"{path} holds no token", TOKEN_ALLOWED))
    wipe(text)


def _floor_file(path: Path, findings: Findings) -> None:
    if not path.parent.is_dir():
        findings.warnings.append(
            ConfigProblem(
                "clock.floor_file",
                f"{path.parent} does not exist, so the time cannot be remembered",
                "a folder that gatewayd can write to; StateDirectory= of the unit makes one",
            )
        )


def _outbox(path: Path, findings: Findings) -> None:
    if not path.parent.is_dir():
        findings.warnings.append(
            ConfigProblem(
                "outbox.path",
                f"{path.parent} does not exist, and without it gatewayd does not start",
                "a folder on this gateway's disk that gatewayd can write to; StateDirectory= of the unit makes one",
            )
        )


def _timetable(config: Config, findings: Findings) -> None:
    """The arithmetic of renewals: what the fleet asks for, against what the budget leaves."""
    tokens, budget = config.tokens, config.hub.budget
    assert findings.devices is not None
    findings.timetable = feasibility(
        findings.devices,
        tokens.lifetime,
        tokens.renew_earliest,
        tokens.renew_latest,
        float(budget.connects_per_second),
        budget.reserve,
    )
    findings.problems += [
        ConfigProblem("tokens.lifetime", problem) for problem in findings.timetable.problems
    ]
