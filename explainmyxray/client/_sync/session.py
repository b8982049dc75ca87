# Generated from ../_async/session.py by: python scripts/generate_sync_client.py
# Don't edit this file: change that one, and run the command.
"""Sending requests with retries, and keeping streams open."""

import time
from collections.abc import Iterator
from typing import Any

import httpx

from explainmyxray.client.connection import Connection
from explainmyxray.client.errors import ApiError
from explainmyxray.client.requests import ApiRequest, T
from explainmyxray.client.retry_policy import RetryPolicy
from explainmyxray.client.streams import E, Subscription


class HttpSession:
    """Connections to one server, shared by all resources of a client."""

    def __init__(self, connection: Connection, retry_policy: RetryPolicy) -> None:
        self.connection = connection
        self.retry_policy = retry_policy
        self._http = httpx.Client()

    def send(self, request: ApiRequest[T]) -> T:
        """Send a request, again if the retry policy allows, and return what its answer means.

        Raises:
            ApiError: The request wasn't carried out, or its answer was lost.
        """
        attempts = 0
        while True:
            attempts += 1
            answer = self._answer(request)
            try:
                return request.result(answer, attempts)
            except ApiError as error:
                pause = self.retry_policy.pause(attempts, error)
                if pause is None or not request.may_be_repeated(answer):
                    raise
            time.sleep(pause)

    def stream(self, subscription: Subscription[E]) -> Iterator[E]:
        """Yield a stream's events, and open it again where it breaks.

        Raises:
            ApiError: The server refuses the stream, or stays unavailable.
        """
        while not subscription.over:
            trouble: httpx.Response | httpx.RequestError | None = None
            request = self.connection.build(self._http, subscription.opening(), stream=True)
            try:
                answer = self._http.send(request, stream=True)
                try:
                    subscription.check(answer)
                    if answer.is_success:
                        for received in answer.iter_bytes():
                            yield from subscription.feed(answer, received)
                            if subscription.over:
                                return
                        subscription.end_of_connection()
                    else:
                        answer.read()
                        trouble = answer
                finally:
                    answer.close()
            except httpx.RequestError as error:
                trouble = error
            if not subscription.over:
                time.sleep(subscription.pause(trouble))

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def _answer(self, request: ApiRequest[Any]) -> httpx.Response | httpx.RequestError:
        try:
            return self._http.send(self.connection.build(self._http, request))
        except httpx.RequestError as error:
            return error
