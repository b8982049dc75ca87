"""The OpenAPI document shows what is sent and what comes back, and the server answers so."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import jsonschema
import pytest

from emx_gateway.api.openapi import operations, scope
from emx_gateway.api.openapi_examples import REPORT
from emx_gateway.app import create_app
from emx_gateway.http.problems import MEDIA_TYPE
from emx_shared.api_keys import SCOPES, KeyRing
from emx_shared.settings import Settings
from emx_shared.store.directory import DirectoryStore
from support.gateway import RunningGateway, StartGateway

BARE = ("image/", "application/pdf", "application/dicom", "application/octet-stream", "text/html", "multipart/")
"""Kinds of content that no example in a document could show; the fields of a form have theirs one by one."""


@pytest.fixture(scope="module")
def schema(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    store = tmp_path_factory.mktemp("store")
    return create_app(Settings(store=f"file:{store}", redis=redis_url)).openapi()


@dataclass
class KeyedGateway(RunningGateway):
    keys: dict[str | None, str]


@pytest.fixture(scope="module")
def keyed(
    redis_url: str, tmp_path_factory: pytest.TempPathFactory, start_gateway: StartGateway
) -> Iterator[KeyedGateway]:
    """A gateway with a key for each set of scopes."""
    store = tmp_path_factory.mktemp("keyed")
    ring = KeyRing(DirectoryStore(store))
    keys: dict[str | None, str] = {None: ring.create("north")[1]}
    keys |= {one: ring.create("north", tuple(s for s in SCOPES if s != one))[1] for one in SCOPES}
    with start_gateway(redis_url, store) as made:
        yield KeyedGateway(made.client, made.ledger, keys)


def contents(schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each request body and each answer that has one: where, media type, what is said of it."""
    for _, operation in operations(schema):
        bodies = {"body": operation.get("requestBody", {}), **operation["responses"]}
        for what, body in bodies.items():
            for kind, content in body.get("content", {}).items():
                yield f"{operation['operationId']} {what} {kind}", kind, content


def addressed(schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each operation with its method and an address: the examples of what is in the path or required."""
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            given = {p["name"]: p["example"] for p in operation.get("parameters", []) if p["required"]}
            url = httpx.URL(re.sub(r"{(\w+)}", lambda found, given=given: given.pop(found[1]), path), params=given)
            yield method, str(url), operation


def ask(gateway: RunningGateway, method: str, url: str, key: str | None = None, **more: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    answer: httpx.Response = gateway.client.request(method, url, headers=headers | more.pop("headers", {}), **more)
    return answer


def shown(operation: dict[str, Any], status: int) -> Any:
    return operation["responses"][str(status)]["content"][MEDIA_TYPE]["example"]


def test_all_that_is_text_has_an_example(schema: dict[str, Any]) -> None:
    without = [where for where, kind, content in contents(schema) if "example" not in content and not bare(kind)]
    assert without == ["report_schema 200 application/schema+json"]


def bare(kind: str) -> bool:
    return kind.startswith(BARE)


def test_each_field_of_a_form_says_what_it_may_be(schema: dict[str, Any]) -> None:
    named = schema["components"]["schemas"]
    forms = [
        named[content["schema"]["$ref"].rpartition("/")[2]]
        for _, kind, content in contents(schema)
        if kind == "multipart/form-data"
    ]
    assert len(forms) == 3
    for form in forms:
        for name, field in form["properties"].items():
            assert "examples" in field or "default" in field or "binary" in str(field), name
            for example in field.get("examples", []):
                jsonschema.Draft202012Validator(field).validate(example)


def test_examples_are_what_the_schema_says(schema: dict[str, Any]) -> None:
    checked = 0
    for _, kind, content in contents(schema):
        if "json" in kind and "example" in content and "schema" in content:
            whole = {**content["schema"], "components": schema["components"]}
            of_lines = isinstance(content["example"], str)  # NDJSON
            examples = map(json.loads, content["example"].splitlines()) if of_lines else [content["example"]]
            for example in examples:
                jsonschema.Draft202012Validator(whole).validate(example)
                checked += 1
    assert checked > 200


def test_examples_of_parameters_are_what_the_schema_says(schema: dict[str, Any]) -> None:
    for _, operation in operations(schema):
        for parameter in operation.get("parameters", []):
            said = {**parameter["schema"], "components": schema["components"]}
            if "example" in parameter:
                jsonschema.Draft202012Validator(said).validate(parameter["example"])
            else:
                assert re.search(r"'(default|enum|\$ref)'", str(said)), parameter["name"]


def test_every_operation_tells_its_limits_and_when_to_come_back(schema: dict[str, Any]) -> None:
    seen = 0
    for _, operation in operations(schema):
        for status, response in operation["responses"].items():
            headers = set(response.get("headers", {}))
            if "security" in operation and status not in ("401", "403"):
                assert {"RateLimit", "RateLimit-Policy"} <= headers
                seen += 1
            if status in ("429", "507") or (status == "503" and operation["operationId"] != "readyz"):
                assert "Retry-After" in headers
            if status == "401":
                assert "WWW-Authenticate" in headers
    assert seen > 150
    for header in schema["components"]["headers"].values():
        assert "example" in header or "examples" in header


def test_who_may_not_is_told_what_is_documented(schema: dict[str, Any], keyed: KeyedGateway) -> None:
    asked = 0
    for method, url, operation in addressed(schema):
        if needed := scope(operation):
            stranger, other = ask(keyed, method, url), ask(keyed, method, url, keyed.keys[needed])
            assert (stranger.status_code, stranger.json()) == (401, shown(operation, 401)), url
            assert (other.status_code, other.json()) == (403, shown(operation, 403)), url
            asked += 1
    assert asked > 30


def test_what_is_not_there_is_told_as_documented(schema: dict[str, Any], keyed: KeyedGateway) -> None:
    asked = 0
    for method, url, operation in addressed(schema):
        if "404" in operation["responses"]:
            answer = ask(keyed, method, url, keyed.keys[None])
            assert (answer.status_code, answer.json()) == (404, shown(operation, 404)), url
            asked += 1
    assert asked > 20


def test_what_does_not_fit_is_told_as_documented(schema: dict[str, Any], keyed: KeyedGateway) -> None:
    asked = set()
    for method, url, operation in addressed(schema):
        example = shown(operation, 422) if "422" in operation["responses"] else {}
        for error in example.get("errors") or ():
            place, _, name = error["where"].partition(".")
            given = "x" if "valid" in error["what"] else "9" * 300
            more: dict[str, Any] = {"files": {"other": b""}} if place == "body" else {}
            if place == "query":
                url = str(httpx.URL(url).copy_merge_params({name: given}))
            if place == "header":
                more["headers"] = {name: given}
            answer = ask(keyed, method, url, keyed.keys[None], **more)
            assert (answer.status_code, answer.json()) == (422, example), url
            asked.add(place)
    assert asked == {"query", "header", "body"}


def test_limits_places_and_waits_are_told_as_documented(schema: dict[str, Any], keyed: KeyedGateway) -> None:
    headers = schema["components"]["headers"]
    policies = {name: one["value"] for name, one in headers["RateLimit-Policy"]["examples"].items()}
    key = keyed.keys[None]
    listed = ask(keyed, "get", "/v1/jobs", key)
    assert listed.headers["ratelimit-policy"] == policies["read"]
    waited = ask(keyed, "post", "/v1/jobs", key, files={"file": keyed.png()}, headers={"Prefer": "wait=1"})
    assert waited.headers["ratelimit-policy"] == policies["submit"]
    report = ask(keyed, "get", f"{waited.headers['location']}/report", key)
    documented = {operation["operationId"]: operation["responses"] for _, operation in operations(schema)}
    for answer, response in (
        (listed, documented["list_jobs"]["200"]),
        (waited, documented["submit_job"]["202"]),
        (ask(keyed, "get", waited.headers["location"], key), documented["show_job"]["200"]),
        (report, documented["show_report_as_accepted"]["409"]),
    ):
        assert {name.lower() for name in response["headers"]} <= set(answer.headers)
    assert report.json()["type"] == shown({"responses": documented["show_report_as_accepted"]}, 409)["type"]
    assert "retry-after" not in ask(keyed, "get", "/readyz").headers


def test_the_example_of_a_report_agrees_with_itself() -> None:
    (location,) = REPORT.locations
    pixels, fractions = location.box, location.box_normalised
    assert 0 <= pixels.xmin < pixels.xmax <= REPORT.image.width
    assert 0 <= pixels.ymin < pixels.ymax <= REPORT.image.height
    assert (pixels.xmin / REPORT.image.width, pixels.ymax / REPORT.image.height) == pytest.approx(
        (fractions.xmin, fractions.ymax), abs=1e-6
    )
    assert (pixels.xmax / REPORT.image.width, pixels.ymin / REPORT.image.height) == pytest.approx(
        (fractions.xmax, fractions.ymin), abs=1e-6
    )
    assert location.evidence and location.evidence in REPORT.findings
