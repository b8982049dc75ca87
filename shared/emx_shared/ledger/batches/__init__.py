"""The operations on batches: submit, advance, erase."""
