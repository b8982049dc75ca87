"""The root of every exception that the public package raises."""


class ExplainMyXrayError(Exception):
    """Anything that ExplainMyXray raises on purpose. Catch it to catch them all."""
