"""A submission's body in any of its three forms: a form, the image itself, or JSON that names an upload."""

from typing import Annotated, Any

from fastapi import Header, Request
from pydantic import BaseModel
from starlette.datastructures import UploadFile

from emx_gateway.http.bodies import content_type, parse_json, read_form, read_image, read_json, validate
from emx_gateway.http.problems import Problem, invalid_fields
from emx_gateway.schemas import JobOptions, UploadedJob
from emx_gateway.services.submissions import JobSubmission

MAX_FIELDS = 20
IMAGE_TYPES = ("application/octet-stream", "image/png", "image/jpeg", "image/tiff", "application/dicom")

_ABOUT = ("title", "description", "default", "examples")
"""What a schema says of a field that doesn't constrain it."""

IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=255)]


async def read_submission(request: Request, max_bytes: int) -> JobSubmission:
    """Read a submission whose image has at most ``max_bytes``. Raises Problem."""
    kind = content_type(request)
    if kind not in IMAGE_TYPES:
        refuse_options_in_query(request)
    if kind == "multipart/form-data":
        return await read_submission_form(request, max_bytes)
    if kind == "application/json":
        uploaded = validate(UploadedJob, await read_json(request))
        return JobSubmission(uploaded, upload=uploaded.upload)
    if kind in IMAGE_TYPES:
        options = _options(dict(request.query_params))
        return JobSubmission(options, data=await read_image(request, max_bytes))
    raise Problem(
        415,
        "unknown-content-type",
        "Send multipart/form-data with a file, the image itself as "
        f"{', '.join(IMAGE_TYPES)}, or application/json that names an upload.",
    )


async def read_submission_form(request: Request, max_bytes: int) -> JobSubmission:
    """Read a submission that must be a form whose image has at most ``max_bytes``. Raises Problem."""
    if content_type(request) != "multipart/form-data":
        raise Problem(415, "unknown-content-type", "Send multipart/form-data with the image as its field `file`.")
    async with read_form(request, files=1, fields=MAX_FIELDS) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise invalid_fields([{"where": "body.file", "what": "Field required: the image"}])
        fields = {name: part for name, part in form.multi_items() if isinstance(part, str)}
        if (file.size or 0) > max_bytes:
            detail = f"The image has {file.size} bytes; at most {max_bytes} are accepted."
            raise Problem(413, "image-too-large", detail)
        return JobSubmission(_options(fields), data=await file.read())


def refuse_options_in_query(request: Request) -> None:
    """Raise Problem 422 for options in the query where the body has place for them: they would be overlooked."""
    what = "Send this option in the body"
    if request.query_params:
        raise invalid_fields([{"where": f"query.{name}", "what": what} for name in request.query_params])


def options_in_query(model: type[BaseModel], as_text: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the query parameters, for OpenAPI, that a body without place for options has beside it.

    Args:
        model: of the options.
        as_text: schemas of options that are written differently there.
    """
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": f"{schema.get('description', '')} (beside a body without a place for it)".strip(),
            # No default: generated clients would send it beside every body.
            "schema": {key: value for key, value in schema.items() if key not in ("description", "default")},
        }
        for name, schema in (model.model_json_schema()["properties"] | as_text).items()
    ]


def _options(fields: dict[str, str]) -> JobOptions:
    """Read the options of a form or a query, in which all is text: metadata is JSON, and empty is absent."""
    given: dict[str, Any] = {name: value for name, value in fields.items() if value}
    if "metadata" in given:
        given["metadata"] = parse_json(given["metadata"].encode())
    return validate(JobOptions, given)


_METADATA_AS_TEXT = {
    "type": "string",
    "description": "A JSON object of strings",
    "examples": ['{"site": "north"}'],
}


def _form_schema() -> dict[str, Any]:
    """Describe the form: all is text there, and an empty field is an absent one."""
    properties = {name: _or_empty(field) for name, field in JobOptions.model_json_schema()["properties"].items()}
    properties |= {
        "file": {"type": "string", "format": "binary", "description": "The radiograph: PNG, JPEG, TIFF or DICOM"},
        "metadata": _METADATA_AS_TEXT,
    }
    return {
        "title": "JobForm",
        "type": "object",
        "properties": properties,
        "required": ["file"],
        "additionalProperties": False,
    }


def _or_empty(schema: dict[str, Any]) -> dict[str, Any]:
    """Allow the empty text in a form's field: of a text by dropping its least length, else beside the rest."""
    about: dict[str, Any] = {key: schema[key] for key in _ABOUT if schema.get(key) is not None}
    allowed = {key: schema[key] for key in schema.keys() - {*_ABOUT}}
    given = next((one for one in allowed.get("anyOf", ()) if one != {"type": "null"}), allowed)
    if given["type"] == "string" and "enum" not in given:
        return {**about, **{key: value for key, value in given.items() if key != "minLength"}}
    return {**about, "anyOf": [given, {"const": ""}]}


_FORM = {"multipart/form-data": {"schema": _form_schema()}}
FORM_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": _FORM}}
"""For OpenAPI."""

REQUEST_BODY: dict[str, Any] = {
    "parameters": options_in_query(JobOptions, {"metadata": _METADATA_AS_TEXT}),
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
    },
}
"""For OpenAPI, in each of the three forms. With the image as the body, options are query parameters."""
