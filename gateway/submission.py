"""A submission, in any of its three forms: multipart, the image as the body, or JSON that names an upload."""

import json
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.datastructures import UploadFile

from gateway.problems import Problem, invalid_fields
from shared.ledger.records import Priority

MAX_FIELDS = 20
IMAGE_TYPES = ("application/octet-stream", "image/png", "image/jpeg", "image/tiff", "application/dicom")
WEEK = 7 * 24 * 3600

Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Indication = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Metadata = Annotated[
    dict[Annotated[str, StringConstraints(max_length=40)], Annotated[str, StringConstraints(max_length=500)]],
    Field(max_length=50),
]


class JobOptions(BaseModel):
    """What a client may say of a study beside the image."""

    model_config = ConfigDict(extra="forbid")

    priority: Priority = Field(default="routine", description="stat is read first, backlog last")
    webhook_url: str | None = Field(default=None, max_length=2048, description="Called when the job ends")
    metadata: Metadata = Field(
        default_factory=dict, description="Your own, given back as it came; nothing of a patient"
    )
    study: Name | None = Field(
        default=None, description="Your name for what belongs together, to list and erase by"
    )
    patient: Name | None = Field(default=None, description="Your pseudonym for the patient, to list and erase by")
    indication: Indication | None = Field(
        default=None, description="Clinical context, for models that were trained to take it"
    )
    expires_in: Annotated[int, Field(ge=1, le=WEEK)] | None = Field(
        default=None, description="Seconds after which the report is no longer wanted; a day by default"
    )


class UploadedJob(JobOptions):
    """A submission whose image was uploaded before (``POST /v1/uploads``)."""

    upload: str = Field(description="The upload's id")


@dataclass(frozen=True)
class Submission:
    """``data`` or ``upload``: the image's bytes, or the upload that has them."""

    options: JobOptions
    data: bytes | None = None
    upload: str | None = None


async def submission(request: Request) -> Submission:
    """Raises Problem."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _of_form(request)
    if kind == "application/json":
        body = _json(await request.body())
        uploaded = _checked(UploadedJob, body)
        assert isinstance(uploaded, UploadedJob)
        return Submission(uploaded, upload=uploaded.upload)
    if kind in IMAGE_TYPES:
        return Submission(_options(dict(request.query_params)), data=await request.body())
    raise Problem(
        415,
        "unknown-content-type",
        "Send multipart/form-data with a file, the image itself as "
        f"{', '.join(IMAGE_TYPES)}, or application/json that names an upload.",
    )


async def _of_form(request: Request) -> Submission:
    async with request.form(max_files=1, max_fields=MAX_FIELDS, max_part_size=2**16) as form:
        files = {name: part for name, part in form.multi_items() if isinstance(part, UploadFile)}
        file = files.get("file")
        if file is None:
            raise invalid_fields([{"where": "body.file", "what": "Field required: the image"}])
        fields = {name: part for name, part in form.multi_items() if isinstance(part, str)}
        return Submission(_options(fields), data=await file.read())


def _options(fields: dict[str, str]) -> JobOptions:
    """Of a form or a query, in which all is text; metadata is then a JSON object, and empty is absent."""
    given: dict[str, Any] = {name: value for name, value in fields.items() if value}
    if "metadata" in given:
        given["metadata"] = _json(given["metadata"].encode())
    return _checked(JobOptions, given)


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise Problem(400, "not-json", "This is not JSON.") from None


def _checked(model: type[JobOptions], given: Any) -> JobOptions:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        found = [{"where": ".".join(map(str, ("body", *e["loc"]))), "what": e["msg"]} for e in error.errors()]
        raise invalid_fields(found) from None


def _form_schema() -> dict[str, Any]:
    schema = JobOptions.model_json_schema()
    properties = schema["properties"] | {
        "file": {"type": "string", "format": "binary", "description": "The radiograph: PNG, JPEG, TIFF or DICOM"},
        "metadata": {
            "type": "string",
            "description": "A JSON object of strings",
            "examples": ['{"site": "north"}'],
        },
    }
    return {"type": "object", "properties": properties, "required": ["file"], "additionalProperties": False}


REQUEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": _form_schema()},
            "application/json": {
                "schema": UploadedJob.model_json_schema(),
                "example": {"upload": "6f6f1a52-5b54-4c8a-9a35-0d8e0c6ad5a1", "priority": "stat"},
            },
            **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in IMAGE_TYPES},
        },
    }
}
"""For OpenAPI. With the image as the body, options are query parameters."""
