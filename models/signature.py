"""Who vouches for a bundle: an Ed25519 signature of its digest, which stands for every file.

Keys are PEM files, as openssl makes them:

    openssl genpkey -algorithm ed25519 -out signing.pem
    openssl pkey -in signing.pem -pubout >> trusted.pem
"""

import re
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from models.bundle import SIGNATURE, Bundle, read_plain
from models.errors import BundleError, KeyFileError

_PUBLIC = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)


class Signer:
    """Signs with the private key of a file. Raises KeyFileError."""

    def __init__(self, file: Path) -> None:
        try:
            key = load_pem_private_key(_read(file), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise _malformed(file, "private key without a password") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise _malformed(file, "private key")
        self._key = key

    def sign(self, digest: str) -> bytes:
        """The signature of the bundle with this digest: 64 bytes."""
        return self._key.sign(_message(digest))


class Trust:
    """Whose bundles are served; anybody's where nobody is named."""

    def __init__(self, keys: Sequence[Ed25519PublicKey] = ()) -> None:
        self._keys = keys

    @classmethod
    def of(cls, file: Path | None) -> "Trust":
        """Those whose public keys a file holds. Raises KeyFileError."""
        if file is None:
            return cls()
        found = []
        for pem in _PUBLIC.findall(_read(file)):
            try:
                key = load_pem_public_key(pem)
            except (ValueError, UnsupportedAlgorithm) as error:
                raise _malformed(file, "public key") from error
            if not isinstance(key, Ed25519PublicKey):
                raise _malformed(file, "public key")
            found.append(key)
        if not found:  # nobody would be asked for a signature
            raise _malformed(file, "public key")
        return cls(found)

    def check(self, bundle: Bundle) -> None:
        """Raise BundleError unless one of them signed it."""
        if not self._keys:
            return
        try:
            signature = read_plain(bundle.path / SIGNATURE)
        except OSError as error:
            raise BundleError(
                f"{bundle.path} is not signed ({error.strerror}).",
                remedy="Sign it where it was trained: kizu-train sign.",
            ) from error
        for key in self._keys:
            try:
                key.verify(signature, _message(bundle.digest))
            except InvalidSignature:
                continue
            return
        raise BundleError(
            f"{bundle.path} is not signed by anybody who is trusted.",
            remedy="Add the signer's public key to KIZU_TRUSTED_KEYS, or leave the bundle alone.",
        )


def _message(digest: str) -> bytes:
    return f"kizu-bundle:{digest}".encode()


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise KeyFileError(f"{file} cannot be read: {error.strerror}.") from error


def _malformed(file: Path, what: str) -> KeyFileError:
    return KeyFileError(
        f"{file} does not hold an Ed25519 {what} as PEM.",
        remedy="Make one with `openssl genpkey -algorithm ed25519`.",
    )
