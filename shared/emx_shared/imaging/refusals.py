"""Why bytes are refused. No text of these errors quotes the file: they reach logs, and files name patients."""

from emx_shared.root_error import ExplainMyXrayError

MIN_SIDE = 32
"""Pixels. Below this no chest could be read."""


class BadImage(ExplainMyXrayError, ValueError):
    """The bytes can't be read as an image; the text says why, and quotes nothing of them."""


class NotAnImage(BadImage):
    """Not of a kind that is accepted."""


class ImageTooLarge(BadImage):
    """More bytes or pixels than are accepted."""


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Check the size in a header before decoding. Raises ImageTooLarge, or BadImage below MIN_SIDE."""
    if width * height > max_pixels:
        raise ImageTooLarge(f"The image has {width}×{height} pixels; at most {max_pixels} are accepted.")
    if min(width, height) < MIN_SIDE:
        raise BadImage(f"The image has {width}×{height} pixels; each side needs at least {MIN_SIDE}.")
