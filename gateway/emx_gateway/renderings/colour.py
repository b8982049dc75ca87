"""Colours as numbers, and how well they contrast."""

import re

Rgb = tuple[int, int, int]


def rgb(colour: str) -> Rgb:
    """Parse ``#rrggbb`` into three bytes; anything else is white, as a report's text is not to be trusted."""
    match = re.fullmatch(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", colour)
    red, green, blue = (int(part, 16) for part in match.groups()) if match else (255, 255, 255)
    return red, green, blue


def contrast(a: Rgb, b: Rgb) -> float:
    """Compute the contrast ratio of WCAG 2.2, 1 to 21; text needs 4.5 for level AA."""
    darker, lighter = sorted((_luminance(a), _luminance(b)))
    return (lighter + 0.05) / (darker + 0.05)


def ink_on(colour: Rgb) -> Rgb:
    """Choose black or white, whichever contrasts more with ``colour``; the ratio is never below 4.5."""
    black, white = (0, 0, 0), (255, 255, 255)
    return max(black, white, key=lambda ink: contrast(ink, colour))


def _luminance(colour: Rgb) -> float:
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (byte / 255 for byte in colour)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
