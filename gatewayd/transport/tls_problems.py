"""What went wrong in TLS, in the words of the one who must act.

OpenSSL speaks of verify codes and alert names; an operator needs to know whether the file of trusted authorities, the
host name, the certificate, the clock or the other end is to blame. A problem that is not in these tables keeps
OpenSSL's own reason: nothing is hidden behind a general word.
"""

from __future__ import annotations

import ssl

# OpenSSL's X509_V_ERR_* (openssl/x509_vfy.h). {name} is the host name the certificate was checked for.
_CERTIFICATE_PROBLEMS = {
    9: "the certificate shown for {name} is not valid yet; check this gateway's clock",
    10: "the certificate shown for {name} has expired; check this gateway's clock, then tell whoever runs {name}",
    18: "{name} shows a self-signed certificate that is not among the trusted authorities",
    19: "the chain of {name} ends in an authority that is not trusted here (unknown CA); check trusted_ca",
    20: "the certificate of {name} comes from an authority that is not trusted here (unknown CA); check trusted_ca",
    21: "{name} shows a certificate without the chain to a trusted authority (unknown CA); check trusted_ca",
    62: "the certificate shown is not for {name}; expected that name in it",
    64: "the certificate shown is not for the address {name}; expected that address in it",
}

# Alerts from the other end and what they mean about this one, by OpenSSL's reason.
_ALERTS = {
    "TLSV1_ALERT_UNKNOWN_CA": "the other end does not trust the authority of our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the other end says that our certificate has expired; check its clock and ours",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the other end refuses our certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the other end refuses our certificate",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "the other end cannot use our kind of certificate",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the other end accepts none of our TLS versions, suites or certificates",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the other end refuses our TLS versions; 1.2 and 1.3 are spoken here",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the other end requires a client certificate",
    "TLSV1_UNRECOGNIZED_NAME": "the other end does not know the host name {name}",
}

_OWN_FINDINGS = {
    "WRONG_VERSION_NUMBER": "the other end does not speak TLS on this port",
    "HTTP_REQUEST": "the other end sent plain HTTP; TLS is spoken on this port",
    "UNSUPPORTED_PROTOCOL": "the other end speaks no TLS version of ours; 1.2 and 1.3 are spoken here",
    "NO_SHARED_CIPHER": "the other end shares no cipher suite with us; ECDHE with AES-GCM or ChaCha20 is spoken here",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the other end showed no client certificate",
    "DECRYPTION_FAILED_OR_BAD_RECORD_MAC": "a record was damaged on the way (bad MAC)",
}


def explain(error: ssl.SSLError, name: str) -> str:
    """One sentence for `error`, met while talking TLS to `name`."""
    if isinstance(error, ssl.SSLCertVerificationError):
        known = _CERTIFICATE_PROBLEMS.get(error.verify_code)
        if known is None:
            known = "the certificate of {name} does not verify: " + error.verify_message
        return known.format(name=name)
    reason = error.reason or ""
    known = _ALERTS.get(reason) or _OWN_FINDINGS.get(reason)
    if known is None:
        known = (reason or str(error)).replace("_", " ").lower()
    return known.format(name=name)
