"""A submission, in any of its three forms: multipart, the image as the body, or JSON that names an upload."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Header, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.datastructures import UploadFile

from emx_gateway.http.bodies import content_type, fitted, parse_json, read_form, read_image, read_json
from emx_gateway.http.problems import Problem, invalid_fields
from emx_shared.ledger.records import Priority

MAX_FIELDS = 20
IMAGE_TYPES = ("application/octet-stream", "image/png", "image/jpeg", "image/tiff", "application/dicom")
WEEK = 7 * 24 * 3600

_ABOUT = ("title", "description", "default", "examples")
"""What a schema says of a field that doesn't constrain it."""

IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=255)]
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
    webhook_url: str | None = Field(
        default=None,
        max_length=2048,
        description="Called when the job ends",
        examples=["https://ris.example.org/hooks/xray"],
    )
    metadata: Metadata = Field(
        default_factory=dict, description="Your own, given back as it came; nothing of a patient"
    )
    study: Name | None = Field(
        default=None,
        description="Your name for what belongs together, to list and erase by",
        examples=["baseline"],
    )
    patient: Name | None = Field(
        default=None, description="Your pseudonym for the patient, to list and erase by", examples=["P-0017"]
    )
    indication: Indication | None = Field(
        default=None,
        description="Clinical context, for models that were trained to take it",
        examples=["Cough for two weeks"],
    )
    expires_in: Annotated[int, Field(ge=1, le=WEEK)] | None = Field(
        default=None,
        description="Seconds after which the report is no longer wanted; a day by default",
        examples=[3600],
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


async def submission(request: Request, max_bytes: int) -> Submission:
    """``max_bytes`` of the image. Raises Problem."""
    kind = content_type(request)
    if kind == "multipart/form-data":
        return await submission_of_form(request)
    if kind == "application/json":
        uploaded = fitted(UploadedJob, await read_json(request))
        return Submission(uploaded, upload=uploaded.upload)
    if kind in IMAGE_TYPES:
        return Submission(_options(dict(request.query_params)), data=await read_image(request, max_bytes))
    raise Problem(
        415,
        "unknown-content-type",
        "Send multipart/form-data with a file, the image itself as "
        f"{', '.join(IMAGE_TYPES)}, or application/json that names an upload.",
    )


async def submission_of_form(request: Request) -> Submission:
    """Raises Problem."""
    if content_type(request) != "multipart/form-data":
        raise Problem(415, "unknown-content-type", "Send multipart/form-data with the image as its field `file`.")
    async with read_form(request, files=1, fields=MAX_FIELDS) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise invalid_fields([{"where": "body.file", "what": "Field required: the image"}])
        fields = {name: part for name, part in form.multi_items() if isinstance(part, str)}
        return Submission(_options(fields), data=await file.read())


def _options(fields: dict[str, str]) -> JobOptions:
    """Of a form or a query, in which all is text; metadata is then a JSON object, and empty is absent."""
    given: dict[str, Any] = {name: value for name, value in fields.items() if value}
    if "metadata" in given:
        given["metadata"] = parse_json(given["metadata"].encode())
    return fitted(JobOptions, given)


def _form_schema() -> dict[str, Any]:
    """Where all is text, an empty field is an absent one."""
    properties = {name: _or_empty(field) for name, field in JobOptions.model_json_schema()["properties"].items()}
    properties |= {
        "file": {"type": "string", "format": "binary", "description": "The radiograph: PNG, JPEG, TIFF or DICOM"},
        "metadata": {
            "type": "string",
            "description": "A JSON object of strings",
            "examples": ['{"site": "north"}'],
        },
    }
    return {"type": "object", "properties": properties, "required": ["file"], "additionalProperties": False}


def _or_empty(schema: dict[str, Any]) -> dict[str, Any]:
    """In a form nothing is null; a free text may be of no length, and a choice or a number empty instead."""
    told: dict[str, Any] = {key: schema[key] for key in _ABOUT if schema.get(key) is not None}
    allowed = {key: schema[key] for key in schema.keys() - {*_ABOUT}}
    given = next((one for one in allowed.get("anyOf", ()) if one != {"type": "null"}), allowed)
    if given["type"] == "string" and "enum" not in given:
        return {**told, **{key: value for key, value in given.items() if key != "minLength"}}
    return {**told, "anyOf": [given, {"const": ""}]}


_FORM = {"multipart/form-data": {"schema": _form_schema()}}
FORM_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": _FORM}}
"""For OpenAPI."""

REQUEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            **_FORM,
            "application/json": {
                "schema": UploadedJob.model_json_schema(),
                "example": {"upload": "6f6f1a52-5b54-4c8a-9a35-0d8e0c6ad5a1", "priority": "stat"},
            },
            **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in IMAGE_TYPES},
        },
    }
}
"""For OpenAPI, in each of the three forms. With the image as the body, options are query parameters."""
