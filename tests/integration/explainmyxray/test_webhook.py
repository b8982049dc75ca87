"""verify_webhook beside the official client of Standard Webhooks."""

import base64
import json
import time
from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook

from explainmyxray import verify_webhook
from explainmyxray.client import BadWebhook
from support.gateway import RunningGateway

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
FORMER = "whsec_" + base64.b64encode(b"f" * 32).decode()
BODY = json.dumps(
    {
        "type": "job.succeeded",
        "timestamp": "2026-01-02T03:04:05Z",
        "data": {"id": "j", "state": "succeeded", "priority": "stat", "submitted_at": "2026-01-02T03:04:05Z"},
    }
)


def signed(*secrets: str, at: float = 0, body: str = BODY) -> dict[str, str]:
    moment = datetime.fromtimestamp(int(time.time() + at), UTC)
    signatures = [Webhook(secret).sign("msg_1", moment, body) for secret in secrets]
    return {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": str(int(moment.timestamp())),
        "Webhook-Signature": " ".join(signatures),
    }


def test_what_the_official_client_signs_is_believed() -> None:
    for body in (BODY, BODY.encode()):
        event = verify_webhook(SECRET, signed(SECRET), body)
        assert (event.type, event.id, event.job.id, event.job.state) == (
            "job.succeeded",
            "msg_1",
            "j",
            "succeeded",
        )
    Webhook(SECRET).verify(BODY, signed(SECRET))


def test_one_good_signature_of_several_is_enough() -> None:
    for secret in (SECRET, FORMER):
        headers = signed(SECRET, FORMER)
        headers["Webhook-Signature"] = "v1a,xyz junk v2, " + headers["Webhook-Signature"]
        assert verify_webhook(secret, headers, BODY).type == "job.succeeded"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (signed(FORMER), BODY),
        (signed(SECRET), BODY + " "),
        (signed(SECRET) | {"Webhook-Id": "msg_2"}, BODY),
        (signed(SECRET) | {"Webhook-Signature": ""}, BODY),
        (signed(SECRET) | {"Webhook-Signature": "v1,é"}, BODY),
        (signed(SECRET) | {"Webhook-Signature": signed(SECRET)["Webhook-Signature"].replace("v1,", "v2,")}, BODY),
        (signed(SECRET) | {"Webhook-Timestamp": "soon"}, BODY),
        ({}, BODY),
        (signed(SECRET, body="[]"), "[]"),
    ],
)
def test_what_is_not_genuine_is_refused(headers: dict[str, str], body: str) -> None:
    with pytest.raises(BadWebhook):
        verify_webhook(SECRET, headers, body)


@pytest.mark.parametrize("at", [-301, 302])
def test_a_recording_is_refused(at: float) -> None:
    with pytest.raises(BadWebhook, match="too old"):
        verify_webhook(SECRET, signed(SECRET, at=at), BODY)
    assert verify_webhook(SECRET, signed(SECRET, at=at), BODY, tolerance=400)


def test_a_secret_that_is_none_is_told() -> None:
    with pytest.raises(ValueError, match="whsec_"):
        verify_webhook("whsec_???", signed(SECRET), BODY)


def test_what_the_gateway_signs_is_believed(gateway: RunningGateway) -> None:
    from emx_gateway.services.webhook_sender import Sender

    secret = gateway.client.post("/v1/webhooks/secrets/rotate").json()["secret"]
    body, headers = Sender(gateway.ledger).signed("default", "m", json.loads(BODY))
    assert verify_webhook(secret, headers, body).id == "m"
