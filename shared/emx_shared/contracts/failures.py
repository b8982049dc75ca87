"""Which failures a repetition can't mend."""

IMAGE_FAULTS = frozenset({"bad-image", "not-an-image", "image-too-large", "image"})
"""Codes of failures for which the image itself is the reason. No model spent time on it."""

PERMANENT_FAILURES = IMAGE_FAULTS | {"poison"}
"""Codes of failures that the same image has again, or that cost four workers their lives."""
