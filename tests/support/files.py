"""Image files made by tests."""

import io
from typing import Any

from PIL import Image


def file(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return the file of an image, as Pillow writes it."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
