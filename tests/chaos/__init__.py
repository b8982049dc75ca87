"""The chaos matrix: real processes, broken in every way that the ledger must survive. ``python -m tests.chaos``."""
