"""Decode images in the gateway: one for each core at a time, as a large one takes much memory."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from emx_gateway.http.problems import Problem
from emx_shared.imaging import DecodedImage, decode
from emx_shared.settings import Settings

_AT_A_TIME = os.cpu_count() or 1
_LONGEST_WAIT = 30.0
"""Seconds."""

T = TypeVar("T")


class ImageDecoding:
    """A bounded number of decodings at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._places = threading.Semaphore(_AT_A_TIME)

    def media_type(self, data: bytes) -> str:
        """Return the media type of an image, which is decoded whole. Raises BadImage, or Problem 503."""
        return self.draw(data, lambda decoded: decoded.facts.media_type)

    def draw(self, data: bytes, drawing: Callable[[DecodedImage], T]) -> T:
        """Decode an image and make something of it.

        Raises:
            BadImage: it can't be decoded.
            Problem: 503, too many are being decoded.
        """
        with self._place():
            return drawing(decode(data, self._settings.max_upload_bytes, self._settings.max_pixels))

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places.acquire(timeout=_LONGEST_WAIT):
            raise Problem(503, "busy", "Too many images are being decoded. Try again later.", {"Retry-After": "5"})
        try:
            yield
        finally:
            self._places.release()
