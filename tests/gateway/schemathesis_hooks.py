"""What the schema can't say: images are images, and manifests are lines of JSON."""

import io
import json
from typing import Any

import schemathesis
from hypothesis import strategies as st
from PIL import Image


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
