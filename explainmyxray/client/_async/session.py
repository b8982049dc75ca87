"""Sending requests with retries, and keeping streams open."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx

from explainmyxray.client.connection import Connection
from explainmyxray.client.errors import ApiError
from explainmyxray.client.requests import ApiRequest, T
from explainmyxray.client.retry_policy import RetryPolicy
from explainmyxray.client.streams import E, Subscription


class AsyncHttpSession:
    """Connections to one server, shared by all resources of a client."""

    def __init__(self, connection: Connection, retry_policy: RetryPolicy) -> None:
        self.connection = connection
        self.retry_policy = retry_policy
        self._http = httpx.AsyncClient()

    async def send(self, request: ApiRequest[T]) -> T:
        """Send a request, again if the retry policy allows, and return what its answer means.

        Raises:
            ApiError: The request wasn't carried out, or its answer was lost.
        """
        attempts = 0
        while True:
            attempts += 1
            answer = await self._answer(request)
            try:
                return request.result(answer, attempts)
            except ApiError as error:
                pause = self.retry_policy.pause(attempts, error)
                if pause is None or not request.may_be_repeated(answer):
                    raise
            await asyncio.sleep(pause)

    async def stream(self, subscription: Subscription[E]) -> AsyncIterator[E]:
        """Yield a stream's events, and open it again where it breaks.

        Raises:
            ApiError: The server refuses the stream, or stays unavailable.
        """
        while not subscription.over:
            trouble: httpx.Response | httpx.RequestError | None = None
            request = self.connection.build(self._http, subscription.opening(), stream=True)
            try:
                answer = await self._http.send(request, stream=True)
                try:
                    subscription.check(answer)
                    if answer.is_success:
                        async for received in answer.aiter_bytes():
                            for event in subscription.feed(answer, received):
                                yield event
                            if subscription.over:
                                return
                        subscription.end_of_connection()
                    else:
                        await answer.aread()
                        trouble = answer
                finally:
                    await answer.aclose()
            except httpx.RequestError as error:
                trouble = error
            if not subscription.over:
                await asyncio.sleep(subscription.pause(trouble))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def _answer(self, request: ApiRequest[Any]) -> httpx.Response | httpx.RequestError:
        try:
            return await self._http.send(self.connection.build(self._http, request))
        except httpx.RequestError as error:
            return error
