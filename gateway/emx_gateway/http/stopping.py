"""Whether this server is about to stop."""

import asyncio


class Stopping:
    """Set once, when the server begins to stop; whoever waits on a client's behalf answers then."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()

    def begin(self) -> None:
        """Say that the server stops."""
        self._begun.set()

    def __bool__(self) -> bool:
        return self._begun.is_set()

    async def wait(self) -> None:
        """Return when the server begins to stop."""
        await self._begun.wait()
