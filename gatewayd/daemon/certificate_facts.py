"""What the daemon needs to know of a PEM file with certificates: the names in the first, and when the first expires."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """`names` are the DNS names and addresses of the leaf; `expires` is wall seconds, the earliest of the file."""

    names: frozenset[str]
    expires: float


def certificate_facts(path: Path) -> CertificateFacts:
    """Read a PEM file that the configuration check found usable. Raises OSError, ValueError."""
    certificates = x509.load_pem_x509_certificates(path.read_bytes())
    names: set[str] = set()
    try:
        extension = certificates[0].extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        pass  # a certificate authority has none
    else:
        names.update(extension.value.get_values_for_type(x509.DNSName))
        names.update(str(address) for address in extension.value.get_values_for_type(x509.IPAddress))
    expires = min(certificate.not_valid_after_utc.timestamp() for certificate in certificates)
    return CertificateFacts(frozenset(names), expires)
