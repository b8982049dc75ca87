"""Which form of an answer a client prefers (RFC 9110, 12.5.1)."""

import re
from collections.abc import Mapping

_QUALITY = re.compile(r"q=([01](?:\.\d{0,3})?)")


def preferred(accept: str, forms: Mapping[str, str]) -> str | None:
    """Return the name of the form that an Accept header prefers; of equals the first; None if it accepts none.

    ``forms`` gives each form's media type.
    """
    ranges = [_range(part) for part in accept.split(",")]
    best, liked = None, 0.0
    for name, media in forms.items():
        patterns = (media, f"{media.partition('/')[0]}/*", "*/*")
        fitting = [(patterns.index(given), quality) for given, quality in ranges if given in patterns]
        quality = min(fitting)[1] if fitting else 0.0  # the most exact range counts
        if quality > liked:
            best, liked = name, quality
    return best


def _range(part: str) -> tuple[str, float]:
    media, *parameters = (piece.strip().lower() for piece in part.split(";"))
    found = [match[1] for match in map(_QUALITY.fullmatch, parameters) if match]
    return media, float(found[0]) if found else 1.0
