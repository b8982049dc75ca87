"""The asyncio client, written by hand. The blocking client in ``_sync`` is generated from it."""
