"""What a server shows of itself: a certificate, and the key that belongs to it."""

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)

from service.settings import SettingsError

_LEAST_BITS, _MOST_BITS = 2048, 4096  # of Basic256Sha256
_REMEDY = "It is PEM or DER; service/CONNECTORS.md says how to make one."


@dataclass(frozen=True)
class Certificate:
    """Both as DER, and the URI under which the certificate vouches for the server."""

    certificate: bytes
    private_key: bytes
    application_uri: str


def read_certificate(certificate: Path, private_key: Path) -> Certificate:
    """Read both, PEM or DER. Raises SettingsError."""
    shown, key = _certificate(certificate), _key(private_key)
    if shown.public_key() != key.public_key():
        raise SettingsError(
            f"{private_key} is not the key of {certificate}.", remedy="Name those of one pair."
        )
    if not _LEAST_BITS <= key.key_size <= _MOST_BITS:
        raise SettingsError(
            f"{private_key} has {key.key_size} bits.",
            remedy=f"Make one of {_LEAST_BITS} to {_MOST_BITS}.",
        )
    return Certificate(
        shown.public_bytes(Encoding.DER),
        key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        _uri(shown, certificate),
    )


def _certificate(file: Path) -> x509.Certificate:
    try:
        data = file.read_bytes()
        load = x509.load_pem_x509_certificate if _is_pem(data) else x509.load_der_x509_certificate
        return load(data)
    except (OSError, ValueError) as error:
        raise SettingsError(f"{file} cannot be read: {error}.", remedy=_REMEDY) from error


def _key(file: Path) -> RSAPrivateKey:
    try:
        data = file.read_bytes()
        load = load_pem_private_key if _is_pem(data) else load_der_private_key
        key = load(data, password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"{file} cannot be read: {error}.", remedy=_REMEDY) from error
    if not isinstance(key, RSAPrivateKey):
        raise SettingsError(f"{file} is no RSA key.", remedy=_REMEDY)
    return key


def _uri(certificate: x509.Certificate, file: Path) -> str:
    """Clients refuse a server whose certificate is of another URI, or of none."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    for uri in names.get_values_for_type(x509.UniformResourceIdentifier):
        return uri
    raise SettingsError(f"{file} has no URI among its subject's names.", remedy=_REMEDY)


def _is_pem(data: bytes) -> bool:
    return data.lstrip().startswith(b"-----BEGIN")
