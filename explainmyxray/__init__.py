"""ExplainMyXray: send a chest X-ray; get a structured report with a box around every finding.

``Client`` and ``AsyncClient`` talk to a server. ``load_model`` and ``run_inference`` run a model in this process,
which needs the packages of ``explainmyxray[worker]``. Every exception of the package is an ExplainMyXrayError.

Research software, not for clinical use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emx_shared.contracts.report import Report
    from emx_shared.imaging import BadImage, ImageTooLarge, NotAnImage
    from emx_shared.root_error import ExplainMyXrayError
    from emx_shared.version import __version__
    from emx_worker.model.checkpoint import ModelError
    from explainmyxray.client import (
        ApiError,
        AsyncClient,
        BadWebhook,
        Batch,
        BatchItem,
        BatchResult,
        Client,
        Conflict,
        Delivery,
        Ended,
        Failure,
        Feedback,
        FeedbackAgreement,
        FeedbackExport,
        FeedbackSummary,
        FindingAgreement,
        FindingSummary,
        Forbidden,
        InvalidConnection,
        InvalidRequest,
        InvalidWebhookSecret,
        Job,
        JobEvent,
        JobSummary,
        NoReport,
        NotFound,
        PingResult,
        ProblemDetails,
        Readiness,
        RejectedImage,
        ReviewedLocation,
        SignedEvent,
        StateChanged,
        StillRunning,
        TextWritten,
        TooManyRequests,
        Unauthenticated,
        Unavailable,
        Upload,
        WebhookEvent,
        WebhookSecret,
        WrongEventType,
        verify_webhook,
    )
    from explainmyxray.image_input import UnreadableFile
    from explainmyxray.local import BoundingBox, Explanation, InferenceError, load_model, run_inference
    from explainmyxray.supervisor import CannotStart

__all__ = [
    "ApiError",
    "AsyncClient",
    "BadImage",
    "BadWebhook",
    "Batch",
    "BatchItem",
    "BatchResult",
    "BoundingBox",
    "CannotStart",
    "Client",
    "Conflict",
    "Delivery",
    "Ended",
    "ExplainMyXrayError",
    "Explanation",
    "Failure",
    "Feedback",
    "FeedbackAgreement",
    "FeedbackExport",
    "FeedbackSummary",
    "FindingAgreement",
    "FindingSummary",
    "Forbidden",
    "ImageTooLarge",
    "InferenceError",
    "InvalidConnection",
    "InvalidRequest",
    "InvalidWebhookSecret",
    "Job",
    "JobEvent",
    "JobSummary",
    "ModelError",
    "NoReport",
    "NotAnImage",
    "NotFound",
    "PingResult",
    "ProblemDetails",
    "Readiness",
    "RejectedImage",
    "Report",
    "ReviewedLocation",
    "SignedEvent",
    "StateChanged",
    "StillRunning",
    "TextWritten",
    "TooManyRequests",
    "Unauthenticated",
    "Unavailable",
    "UnreadableFile",
    "Upload",
    "WebhookEvent",
    "WebhookSecret",
    "WrongEventType",
    "__version__",
    "load_model",
    "run_inference",
    "verify_webhook",
]

_ELSEWHERE = {
    "emx_shared.contracts.report": ("Report",),
    "emx_shared.root_error": ("ExplainMyXrayError",),
    "emx_shared.imaging": ("BadImage", "ImageTooLarge", "NotAnImage"),
    "emx_shared.version": ("__version__",),
    "emx_worker.model.checkpoint": ("ModelError",),
    "explainmyxray.image_input": ("UnreadableFile",),
    "explainmyxray.local": ("BoundingBox", "Explanation", "InferenceError", "load_model", "run_inference"),
    "explainmyxray.supervisor": ("CannotStart",),
}
_MODULES = {name: module for module, names in _ELSEWHERE.items() for name in names}
"""Modules of the names above; the others are in ``explainmyxray.client``."""


def __getattr__(name: str) -> Any:
    """Import a name when it is first used (PEP 562), so that only a local model needs torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_MODULES.get(name, "explainmyxray.client")), name)
    return found


def __dir__() -> list[str]:
    """List the public names, whether they have been imported yet or not."""
    return sorted({*globals(), *__all__})
