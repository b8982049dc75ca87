"""The receiver's faults depend on its seed alone, and end."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from standardwebhooks.webhooks import Webhook

from tests.chaos.receiver import Fault, WebhookReceiver

SECRET = "whsec_" + "c2VjcmV0" * 4


@contextmanager
def receiving(seed: int) -> Iterator[WebhookReceiver]:
    with WebhookReceiver(SECRET, seed, most=2, share=0.5) as receiver:
        yield receiver


def send(receiver: WebhookReceiver, message: str) -> Fault | None:
    now, body = datetime.now(UTC), json.dumps({"type": "job.succeeded", "data": {"id": "a"}})
    headers = {
        "webhook-id": message,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign(message, now, body),
    }
    return receiver.receive(body.encode(), headers)


def three_tries_each(seed: int) -> list[list[Fault | None]]:
    with receiving(seed) as receiver:
        return [[send(receiver, f"event-{number}") for _ in range(3)] for number in range(20)]


def test_the_same_seed_gives_the_same_faults_and_the_third_try_is_taken() -> None:
    first = three_tries_each(1)
    assert first == three_tries_each(1) != three_tries_each(2)
    assert all(tries[2] is None for tries in first)
    assert {fault for tries in first for fault in tries} == {None, "500", "503", "no answer", "answer lost"}


def test_an_event_without_a_valid_signature_is_not_taken() -> None:
    with receiving(1) as receiver:
        headers = {"webhook-id": "x", "webhook-timestamp": "1", "webhook-signature": "v1,x"}
        assert receiver.receive(b"{}", headers) == "500"
        assert receiver.unsigned == 1 and not receiver.taken
