"""Where images and bundles are: on this computer, or in an object store that several share."""

from typing import TYPE_CHECKING

from service.settings import Settings, SettingsError
from service.store.blobs import Blobs
from service.store.local_blobs import LocalBlobs
from service.store.mirror import Mirror
from service.store.object_blobs import ObjectBlobs

if TYPE_CHECKING:
    from service.store.objects import ObjectStore


def open_blobs(settings: Settings) -> Blobs:
    """As the settings say. Raises SettingsError."""
    here = LocalBlobs(settings.data / "blobs")
    if not settings.blobs:
        return here
    if settings.free_gb:
        raise SettingsError(
            "KIZU_FREE_GB makes room on this computer's disk, and images are elsewhere, in "
            f"{settings.blobs}.",
            remedy="Leave it out; KIZU_QUOTA_GB counts what is in the object store.",
        )
    return ObjectBlobs(open_objects(settings.blobs), here)


def open_mirror(settings: Settings) -> Mirror | None:
    """Where bundles are shared. Raises SettingsError."""
    if not settings.bundles:
        return None
    if f"{settings.blobs}/".startswith(f"{settings.bundles.rstrip('/')}/"):
        raise SettingsError(
            "KIZU_BLOBS is the same place as KIZU_BUNDLES, or below it.",
            remedy="Give each its own, such as s3://bucket/images and s3://bucket/bundles.",
        )
    return Mirror(open_objects(settings.bundles), settings.store)


def open_objects(address: str) -> "ObjectStore":
    """The store at an address. Raises SettingsError."""
    try:
        from service.store.objects import ObjectStore
    except ImportError as error:
        raise SettingsError(
            f"{error.name} is not installed here.", remedy="pip install 'kizu[s3]'."
        ) from error
    return ObjectStore(address)
