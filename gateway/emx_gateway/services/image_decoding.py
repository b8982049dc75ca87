"""Decode images in the gateway: a few at a time, as a large one takes much memory; tenants take turns."""

import asyncio
import os
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from emx_gateway.http.problems import Problem
from emx_shared.fair_threads import FairThreads
from emx_shared.imaging import DecodedImage, decode
from emx_shared.imaging.decoder_pool import DecoderPool
from emx_shared.settings import Settings

_PER_TENANT = os.cpu_count() or 1
_AT_A_TIME = _PER_TENANT + 1
"""One more than a single tenant can take, so that nobody waits for all of another's."""
_LONGEST_WAIT = 30.0
"""Seconds."""

T = TypeVar("T")


class ImageDecoding:
    """A few decodings at a time, in processes of their own. No thread of the server's waits for them."""

    def __init__(self, settings: Settings) -> None:
        """Start the processes and the threads that wait for them."""
        self._settings, self._limits = settings, (settings.max_upload_bytes, settings.max_pixels)
        self._pool = DecoderPool(_AT_A_TIME, settings)
        self._threads = FairThreads(_AT_A_TIME, "decoding", _PER_TENANT)

    async def media_type(self, data: bytes, tenant: str) -> str:
        """Return the media type of an image, which is decoded whole. Raises BadImage, or Problem 503."""
        found, _ = await self._turn(tenant, lambda: self._pool.run(partial(_media_type, *self._limits), data))
        return str(found)

    async def draw(
        self, tenant: str, fetch: Callable[[], bytes], drawing: Callable[[DecodedImage], bytes], deep: bool = False
    ) -> bytes:
        """Decode an image and make something of it.

        Args:
            tenant: whose turn it takes.
            fetch: returns the image's bytes, once it is its turn.
            drawing: a function of a module, or a ``partial`` of one.
            deep: whether a file of more than 8 bits is drawn with 16.

        Raises:
            BadImage: it can't be decoded.
            Problem: 503, too many are being decoded; or what ``fetch`` raises.
        """
        work = partial(_drawn, *self._limits, deep, drawing)
        _, drawn = await self._turn(tenant, lambda: self._pool.run(work, fetch()))
        return drawn

    def close(self) -> None:
        """End threads and processes."""
        self._threads.close()
        self._pool.close()

    async def _turn(self, tenant: str, work: Callable[[], T]) -> T:
        place = self._threads.submit(tenant, work)
        try:
            async with asyncio.timeout(_LONGEST_WAIT + self._settings.decode_timeout):
                return await asyncio.wrap_future(place)
        except TimeoutError:
            detail = "Too many images are being decoded. Try again later."
            raise Problem(503, "busy", detail, {"Retry-After": "5"}) from None


def _media_type(max_bytes: int, max_pixels: int, data: bytes) -> tuple[str, bytes]:
    return decode(data, max_bytes, max_pixels).facts.media_type, b""


def _drawn(
    max_bytes: int, max_pixels: int, deep: bool, drawing: Callable[[DecodedImage], bytes], data: bytes
) -> tuple[None, bytes]:
    return None, drawing(decode(data, max_bytes, max_pixels, deep))
