"""What the schema names once: bodies and problems as components, webhooks, events and lines of results."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from emx_gateway.http.problems import ProblemDocument
from emx_gateway.schemas import BatchResult, Job
from emx_shared.contracts.states import JobState

_REF = "#/components/schemas/"
_ENDS = ("succeeded", "failed", "cancelled", "expired")


class JobEvent(BaseModel):
    """A webhook about a job that ended."""

    type: Literal["job.succeeded", "job.failed", "job.cancelled", "job.expired"]
    timestamp: str = Field(description="When the job ended", json_schema_extra={"format": "date-time"})
    data: Job


class EndedBatch(BaseModel):
    """A batch that ended."""

    id: str
    state: Literal["completed", "cancelled"]
    counts: dict[str, int] | None = Field(default=None, description="Items by state")


class BatchEvent(BaseModel):
    """A webhook about a batch that ended."""

    type: Literal["batch.completed", "batch.cancelled"]
    timestamp: str = Field(description="When the batch ended", json_schema_extra={"format": "date-time"})
    data: EndedBatch


class StateEvent(BaseModel):
    """``state`` in a job's event stream."""

    state: JobState


class TextEvent(BaseModel):
    """``text`` in a job's event stream: a piece of the report as it is written."""

    offset: int = Field(description="Where the piece begins, in characters")
    text: str


_MODELS = (ProblemDocument, JobEvent, BatchEvent, StateEvent, TextEvent, BatchResult, Job)


JOB_EVENTS: dict[str, Any] = {
    "title": "JobServerSentEvent",
    "oneOf": [
        {
            "type": "object",
            "required": ["event", "data"],
            "properties": {
                "id": {"type": "string"},
                "event": {"const": event},
                "data": {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": {"$ref": _REF + model},
                },
            },
        }
        for event, model in (("state", "StateEvent"), ("text", "TextEvent"), ("ended", "Job"))
    ],
}
"""An event of a job's stream. Its data is JSON, which OpenAPI 3.1 can say of a text."""


def add_components(schema: dict[str, Any]) -> None:
    """Name every shape once, so that generated clients have a type for it."""
    known = schema["components"]["schemas"]
    for model in _MODELS:
        _hoist(model.model_json_schema(), known)
    for methods in schema["paths"].values():
        for operation in methods.values():
            bodies = operation.get("requestBody", {}).get("content", {})
            answers = [answer.get("content", {}) for answer in operation["responses"].values()]
            for content in (*bodies.values(), *(each for some in answers for each in some.values())):
                if "title" in content.get("schema", {}):
                    content["schema"] = _hoist(content["schema"], known)
    schema["webhooks"] = {
        **{f"job.{state}": _webhook("JobEvent", f"A job ended: {state}") for state in _ENDS},
        **{f"batch.{state}": _webhook("BatchEvent", f"A batch ended: {state}") for state in _ENDS_OF_BATCHES},
    }


_ENDS_OF_BATCHES = ("completed", "cancelled")


def _hoist(shape: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Move a shape, and those inside it, among the named ones; return the reference that takes its place."""
    shape = dict(shape)
    for name, inner in shape.pop("$defs", {}).items():
        known.setdefault(name, _pointing_here(inner))
    known.setdefault(shape["title"], _pointing_here(shape))
    return {"$ref": _REF + shape["title"]}


def _pointing_here(shape: Any) -> Any:
    if isinstance(shape, dict):
        return {
            key: value.replace("#/$defs/", _REF) if key == "$ref" else _pointing_here(value)
            for key, value in shape.items()
        }
    return [_pointing_here(each) for each in shape] if isinstance(shape, list) else shape


def _webhook(name: str, summary: str) -> dict[str, Any]:
    text = {"in": "header", "required": True, "schema": {"type": "string"}}
    return {
        "post": {
            "summary": summary,
            "description": "Signed as Standard Webhooks are. Answer with 2xx within 10 seconds.",
            "parameters": [{"name": f"webhook-{part}", **text} for part in ("id", "timestamp", "signature")],
            "requestBody": {"content": {"application/json": {"schema": {"$ref": _REF + name}}}},
            "responses": {"2XX": {"description": "Received"}, "410": {"description": "Don't send this again"}},
        }
    }
