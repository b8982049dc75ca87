# Generated from ../_async/webhooks.py by: python scripts/generate_sync_client.py
# Don't edit this file: change that one, and run the command.
"""``client.webhooks``: signing secrets, deliveries, and events for a developer who listens."""

from collections.abc import Iterator
from datetime import datetime
from typing import Unpack

from explainmyxray.client._sync.session import HttpSession
from explainmyxray.client.events import SignedEvent, subscribe_to_webhooks
from explainmyxray.client.requests import ApiRequest, as_model, as_texts, id_of
from explainmyxray.client.resources import (
    Delivery,
    DeliveryFilter,
    DeliveryPage,
    DeliveryStatus,
    PingResult,
    RedeliveredPage,
    WebhookSecret,
)


class Webhooks:
    """The webhooks of a tenant. Every method raises ApiError if the server refuses or is unavailable."""

    def __init__(self, session: HttpSession) -> None:
        self._session = session

    def ping(self, url: str) -> PingResult:
        """Send a test event to an endpoint now, and return how it answered.

        Raises:
            InvalidRequest: Webhooks may not be sent to this address.
        """
        return self._session.send(
            ApiRequest("POST", "/v1/webhooks/ping", as_model(PingResult), json={"url": url}, held_for=10.0)
        )

    def rotate_secret(self) -> WebhookSecret:
        """Make a new signing secret, also the first one.

        It isn't sent again when the answer is lost: a second rotation would end the validity of the secret in use.

        Returns:
            The new secret, which the server doesn't show again.
        """
        return self._session.send(
            ApiRequest("POST", "/v1/webhooks/secrets/rotate", as_model(WebhookSecret), repeatable=False)
        )

    def deliveries(self, **filters: Unpack[DeliveryFilter]) -> Iterator[Delivery]:
        """List deliveries, newest first. Pages are fetched as they are needed.

        Args:
            **filters: See DeliveryFilter.
        """
        cursor = None
        while True:
            params = as_texts(filters) | {"limit": "100"} | ({"cursor": cursor} if cursor else {})
            page = self._session.send(
                ApiRequest("GET", "/v1/webhooks/deliveries", as_model(DeliveryPage), params=params)
            )
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def get_delivery(self, delivery: Delivery | str) -> Delivery:
        """Fetch a delivery's current state.

        Raises:
            NotFound: The delivery doesn't exist or belongs to another tenant.
        """
        return self._session.send(
            ApiRequest("GET", f"/v1/webhooks/deliveries/{id_of(delivery)}", as_model(Delivery))
        )

    def redeliver(self, delivery: Delivery | str) -> Delivery:
        """Send an event now, with the same ``webhook-id``.

        The request isn't sent again when its answer is lost, so that the event isn't sent twice.

        Returns:
            The delivery if it was still owed, else a new one of the same event.

        Raises:
            NotFound: The delivery doesn't exist or belongs to another tenant.
        """
        path = f"/v1/webhooks/deliveries/{id_of(delivery)}/redeliver"
        return self._session.send(ApiRequest("POST", path, as_model(Delivery), repeatable=False))

    def redeliver_many(
        self,
        created_after: datetime,
        created_before: datetime | None = None,
        status: DeliveryStatus = "undelivered",
    ) -> int:
        """Send the events of a time range again, such as those of an outage.

        Args:
            created_after: Start of the range; without a zone it is in UTC.
            created_before: End of the range. Default: now.
            status: Which deliveries: owed, delivered or undelivered.

        Returns:
            How many events are sent.
        """
        given = {"created_after": created_after, "created_before": created_before, "status": status}
        sent, cursor = 0, None
        while True:
            params = as_texts(given) | ({"cursor": cursor} if cursor else {})
            page = self._session.send(
                ApiRequest(
                    "POST",
                    "/v1/webhooks/redeliver",
                    as_model(RedeliveredPage),
                    params=params,
                    repeatable=False,
                )
            )
            sent, cursor = sent + page.redelivered, page.next_cursor
            if cursor is None:
                return sent

    def listen(self) -> Iterator[SignedEvent]:
        """Yield all webhooks from now on, for development. It never ends, and reconnects by itself.

        Events that happen while the connection is broken are lost.
        """
        return self._session.stream(subscribe_to_webhooks())
