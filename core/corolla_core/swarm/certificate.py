"""Ephemeral self-signed certificates and TLS 1.3 contexts. Trust comes from the pinned hash alone."""

from __future__ import annotations

import hashlib
import os
import ssl
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from corolla_core.protocol.ids import Hash32

_NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "corolla")])
_VALID = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its key, both PEM; `hash` is the SHA-256 of its DER, which peers pin."""

    cert_pem: bytes
    key_pem: bytes
    hash: Hash32

    def __repr__(self) -> str:
        return f"Certificate({self.hash.hex()})"


def ephemeral_certificate() -> Certificate:
    """A new P-256 certificate; nothing in it but the key matters, since peers pin its hash."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_NAME)
        .issuer_name(_NAME)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _VALID)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    der = certificate.public_bytes(serialization.Encoding.DER)
    return Certificate(certificate.public_bytes(serialization.Encoding.PEM), key_pem, certificate_hash(der))


def certificate_hash(der: bytes) -> Hash32:
    return Hash32(hashlib.sha256(der).digest())


def server_context(certificate: Certificate) -> ssl.SSLContext:
    """TLS 1.3 only. Clients show no certificate: they prove their account in the hello."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    # ssl loads keys from files only; the file lives for this call, readable by this user alone.
    handle, path = tempfile.mkstemp(prefix="corolla-tls-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(certificate.cert_pem + certificate.key_pem)
        context.load_cert_chain(path)
    finally:
        os.unlink(path)
    return context


def client_context() -> ssl.SSLContext:
    """TLS 1.3 only; the caller must compare the server's certificate hash before it sends a byte."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
