"""ETag and If-None-Match (RFC 9110, 8.8.3 and 13.1.2) for what never changes once it is there."""

import hashlib
from typing import Annotated

from fastapi import Header

from emx_shared.version import __version__


class NotModified(Exception):
    """The client has this already: answered 304."""

    def __init__(self, tag: str) -> None:
        super().__init__(tag)
        self.tag = tag


class EntityTags:
    """What the client of one request has. A dependency of its endpoint."""

    def __init__(
        self,
        if_none_match: Annotated[
            str | None, Header(description="ETag of what you have: 304 if it is still the same")
        ] = None,
    ) -> None:
        self._had = {each.strip().removeprefix("W/") for each in (if_none_match or "").split(",")}

    def headers(self, *parts: object) -> dict[str, str]:
        """Return the header ETag for what these parts, and this version of the code, determine.

        Raises:
            NotModified: the client has it.
        """
        digest = hashlib.sha256("\n".join(map(str, (__version__, *parts))).encode()).hexdigest()
        tag = f'"{digest[:32]}"'
        if self._had & {tag, "*"}:
            raise NotModified(tag)
        return {"ETag": tag}
