"""The root of Kizu's error tree and the errors of the shared contracts.

KizuError
- ImageError: an image that cannot be read as its recipe declares
- BackboneError: a backbone that is missing or not what its manifest says
- BundleError: a bundle that is missing, incomplete or tampered with
- KeyFileError: a file that holds no key
- SnapshotError: a snapshot that is missing, incomplete or tampered with
- ModelError: an ONNX model that the runtime cannot load
- DeviceError: a device that was asked for and does not run
- SettingsError, DatabaseError, OutboxHeld: see service.settings, service.store.database,
  service.connectors.outbox
- TrainingError: see training.errors
- ServiceError: see service.errors
"""


class KizuError(Exception):
    """Something a person can mend.

    `message` says what happened, `remedy` what to do about it.
    """

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class ImageError(KizuError):
    """An image that cannot be read, or not as the recipe declares its pixels."""


class BackboneError(KizuError):
    """A backbone that is missing, malformed, or differs from its manifest."""


class BundleError(KizuError):
    """A bundle that is missing, incomplete, or differs from its manifest."""


class KeyFileError(KizuError):
    """A file that holds no key to sign bundles with, or to trust."""


class SnapshotError(KizuError):
    """A snapshot that is missing, incomplete, or differs from its digest."""


class ModelError(KizuError):
    """An ONNX model that the runtime cannot load."""


class DeviceError(KizuError):
    """A named device that does not really run the model."""
