"""``python -m tests.chaos``: real processes, broken in every way that the ledger must survive."""
