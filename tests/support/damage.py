"""What can happen to a stored record."""

from emx_shared.store import Store

DAMAGES = ("emptied", "cut", "garbage", "invalid")
"""The last is whole JSON of this format that is no record."""


def damage(store: Store, key: str, how: str) -> None:
    """Damage an object, or store one that is damaged."""
    data = store.get(key) if store.exists(key) else b'{"format": "2.0", "tenant": "default", "id"'
    made = {
        "emptied": b"",
        "cut": data[:-10],
        "garbage": b"\xff\x00\x9c no record",
        "invalid": b'{"format": "2.0", "state": "odd", "kind": "odd"}',
    }
    store.put(key, made[how])
