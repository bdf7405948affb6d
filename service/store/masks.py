"""Where a label says that a part is defective, as an image of it."""

import numpy as np

from models.image import encode_png
from service.store.blobs import Blobs
from service.store.tables import Feedback, Inspection


def mask_of(blobs: Blobs, row: Inspection, label: Feedback) -> bytes | None:
    """The mask of a label as PNG: as it was drawn, or its boxes; None where it says nowhere."""
    if label.mask_sha256:
        return blobs.get(label.mask_sha256)
    if not label.boxes:
        return None
    mask = np.zeros((row.height, row.width), np.uint8)
    for box in label.boxes:
        mask[box["y"] : box["y"] + box["height"], box["x"] : box["x"] + box["width"]] = 255
    return encode_png(mask)
