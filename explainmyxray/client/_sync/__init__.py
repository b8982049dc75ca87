# Generated from ../_async/__init__.py by: python scripts/generate_sync_client.py
# Don't edit this file: change that one, and run the command.
"""The blocking client, generated from the asyncio client beside it."""
