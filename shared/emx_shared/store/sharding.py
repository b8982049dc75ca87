"""Where a directory keeps an object: an id or a digest has a folder of its first characters above it.

So no folder grows too large to be listed: ``jobs/3f0a…/request.json`` is ``jobs/3f/3f0a…/request.json``. Files
that an operator puts below ``imports/`` stay as they are.
"""

import re

_ID = re.compile(r"[0-9a-f][0-9a-f-]{31,63}")
_SHARD = 2
_AS_GIVEN = "imports"


def path_of(key: str) -> str:
    """Return the relative path of an object or a folder of objects."""
    parts = key.split("/")
    if parts[0] == _AS_GIVEN:
        return key
    return "/".join(f"{part[:_SHARD]}/{part}" if _ID.fullmatch(part) else part for part in parts)


def key_of(path: str) -> str:
    """Return the key of what ``path_of`` gave this path."""
    parts = path.split("/")
    if parts[0] == _AS_GIVEN:
        return path
    kept = [part for part, below in zip(parts, [*parts[1:], ""], strict=True) if not is_shard(part, below)]
    return "/".join(kept)


def is_shard(folder: str, below: str) -> bool:
    """Return whether a folder is there only for what is below it."""
    return bool(_ID.fullmatch(below)) and folder == below[:_SHARD]
