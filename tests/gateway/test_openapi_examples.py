"""The OpenAPI document shows what is sent and what comes back."""

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from gateway.app import create_app
from gateway.examples import REPORT
from gateway.openapi import operations
from shared.settings import Settings

BARE = ("image/", "application/pdf", "application/dicom", "application/octet-stream", "text/html", "multipart/")
"""Kinds of content that no example in a document could show."""


@pytest.fixture(scope="module")
def schema(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    store = tmp_path_factory.mktemp("store")
    return create_app(Settings(store=f"file:{store}", redis=redis_url)).openapi()


def contents(schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each request body and each answer that has one: where, media type, what is said of it."""
    for _, operation in operations(schema):
        bodies = {"body": operation.get("requestBody", {}), **operation["responses"]}
        for what, body in bodies.items():
            for kind, content in body.get("content", {}).items():
                yield f"{operation['operationId']} {what} {kind}", kind, content


def test_all_that_is_text_has_an_example(schema: dict[str, Any]) -> None:
    without = [where for where, kind, content in contents(schema) if "example" not in content and not bare(kind)]
    assert without == ["report_schema 200 application/schema+json"]


def bare(kind: str) -> bool:
    return kind.startswith(BARE)


def test_examples_are_what_the_schema_says(schema: dict[str, Any]) -> None:
    checked = 0
    for _, kind, content in contents(schema):
        if "json" in kind and "example" in content and "schema" in content:
            whole = {**content["schema"], "components": schema["components"]}
            jsonschema.Draft202012Validator(whole).validate(content["example"])
            checked += 1
    assert checked > 200


def test_every_operation_tells_its_limits_and_when_to_come_back(schema: dict[str, Any]) -> None:
    seen = 0
    for _, operation in operations(schema):
        for status, response in operation["responses"].items():
            headers = set(response.get("headers", {}))
            if "security" in operation and status in ("200", "201", "202", "204", "429"):
                assert {"RateLimit", "RateLimit-Policy"} <= headers
                seen += 1
            if status in ("429", "503"):
                assert "Retry-After" in headers
            if status == "401":
                assert "WWW-Authenticate" in headers
    assert seen > 50


def test_the_example_of_a_report_agrees_with_itself() -> None:
    (location,) = REPORT.locations
    pixels, fractions = location.box, location.box_normalised
    assert (pixels.xmin / REPORT.image.width, pixels.ymax / REPORT.image.height) == pytest.approx(
        (fractions.xmin, fractions.ymax), abs=1e-6
    )
    assert location.evidence and location.evidence in REPORT.findings
