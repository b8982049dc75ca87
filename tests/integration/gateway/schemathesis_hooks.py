"""What the schema can't say: images are images, and manifests are lines of JSON."""

import io
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import schemathesis
from hypothesis import strategies as st
from PIL import Image
from schemathesis.core.parameters import ParameterLocation


def _png(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (64, 48), shade).save(stream, "PNG")
    return stream.getvalue()


IMAGES = st.sampled_from([_png(shade) for shade in (0, 90, 255)])
schemathesis.openapi.format("binary", IMAGES)
for kind in ("image/png", "image/jpeg", "image/tiff", "application/dicom", "application/octet-stream"):
    schemathesis.openapi.media_type(kind, IMAGES)


@schemathesis.serializer("application/x-ndjson")
def ndjson(context: Any, value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


@schemathesis.serializer("text/csv")
def csv(context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """Not those whose form is wrong until it is sent: there a number in a name's place is a name."""
    kind, meta = case.media_type, case.meta
    if kind != "multipart/form-data" or not (meta and meta.is_negative_at(ParameterLocation.BODY)):
        return True
    schema = case.operation.get_body_for_media_type(kind).optimized_schema
    return not (isinstance(case.body, dict) and _fits_as_text(case.body, schema))


def _fits_as_text(form: dict[str, Any], schema: dict[str, Any]) -> bool:
    """An empty list or object isn't sent at all."""
    fields = {name: value for name, value in form.items() if value not in ([], {})}
    known = schema.get("properties", {})
    return set(schema.get("required", ())) <= fields.keys() <= known.keys() and all(
        any(jsonschema.Draft202012Validator(known[name]).is_valid(read) for read in _readings(value))
        for name, value in fields.items()
    )


def _readings(value: Any) -> Iterator[Any]:
    """What a server may take a field for: bytes and text for text, all else for what it says, or for itself."""
    yield value if isinstance(value, str) else "" if isinstance(value, bytes) else json.dumps(value)
    if isinstance(value, str):
        try:
            yield json.loads(value)
        except ValueError:
            return
    else:
        yield value
