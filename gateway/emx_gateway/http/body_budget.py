"""How many bytes of request bodies are in hand at a time, in all and of each tenant."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

from fastapi import Request

from emx_gateway.http.problems import Problem

_LONGEST_WAIT = 20.0
"""Seconds that a request waits for others to be done, unread. Few clients wait longer for an answer."""


class BodyBudget:
    """Admits bodies by the length that they declare, before they are read. A tenant may have half of the bytes."""

    def __init__(self, total: int) -> None:
        """Set how many bytes may be in hand."""
        self._total, self._per_tenant = total, total // 2
        self._held: Counter[str] = Counter()
        self._changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def room(self, request: Request, tenant: str, most: int) -> AsyncIterator[None]:
        """Keep room for a request's body while it is received and worked on.

        Args:
            request: whose Content-Length counts.
            tenant: whose request it is.
            most: bytes that count where the length isn't declared.

        Raises:
            Problem: 429 if the tenant's other requests take too much; 503 if everybody's do.
        """
        declared = request.headers.get("content-length", "")
        size = min(int(declared) if declared.isdigit() else most, self._per_tenant)
        await self._take(tenant, size)
        try:
            yield
        finally:
            await self._give_back(tenant, size)

    async def _take(self, tenant: str, size: int) -> None:
        try:
            async with asyncio.timeout(_LONGEST_WAIT), self._changed:
                await self._changed.wait_for(lambda: self._fits(tenant, size))
                self._held[tenant] += size
        except TimeoutError:
            retry = {"Retry-After": "5", "Connection": "close"}
            if self._held[tenant] + size > self._per_tenant:
                detail = (
                    "Your other requests that are being received take all the room you have. Send fewer at a time."
                )
                raise Problem(429, "too-much-at-a-time", detail, retry) from None
            detail = "Too much is being received. Try again later."
            raise Problem(503, "busy", detail, retry) from None

    async def _give_back(self, tenant: str, size: int) -> None:
        self._held[tenant] -= size  # before anything can be cancelled
        if not self._held[tenant]:
            del self._held[tenant]
        async with self._changed:
            self._changed.notify_all()

    def _fits(self, tenant: str, size: int) -> bool:
        return self._held[tenant] + size <= self._per_tenant and self._held.total() + size <= self._total
