"""The client of a server of ExplainMyXray. Needs neither torch nor FastAPI."""

from explainmyxray.client.blocking import Client
from explainmyxray.client.errors import (
    ApiError,
    BadImage,
    Conflict,
    Forbidden,
    InvalidRequest,
    NoReport,
    NotFound,
    Problem,
    StillRunning,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from explainmyxray.client.events import Ended, JobEvent, SignedEvent, StateChanged, TextWritten
from explainmyxray.client.nonblocking import AsyncClient
from explainmyxray.client.resources import Batch, BatchItem, Job, Readiness, Upload
from explainmyxray.client.webhook import BadWebhook, Event, verify_webhook

__all__ = [
    "ApiError",
    "AsyncClient",
    "BadImage",
    "BadWebhook",
    "Batch",
    "BatchItem",
    "Client",
    "Conflict",
    "Ended",
    "Event",
    "Forbidden",
    "InvalidRequest",
    "Job",
    "JobEvent",
    "NoReport",
    "NotFound",
    "Problem",
    "Readiness",
    "SignedEvent",
    "StateChanged",
    "StillRunning",
    "TextWritten",
    "TooManyRequests",
    "Unauthenticated",
    "Unavailable",
    "Upload",
    "verify_webhook",
]
