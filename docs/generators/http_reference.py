"""Writes reference/http.md from the gateway's OpenAPI document."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any

from emx_gateway.app import create_app
from emx_shared.settings import Settings

TAGS = {
    "simple": ("The simple form", "One call that answers with the finished report."),
    "jobs": ("Jobs", "One image each."),
    "renderings": ("Reports and images", "What belongs to a job that has succeeded."),
    "feedback": ("Feedback", "What readers say of reports, to look at and to train on."),
    "uploads": ("Uploads", "Images that are stored before they are submitted."),
    "batches": ("Batches", "Many images in one submission."),
    "webhooks": ("Webhooks", "Signing secrets, and how events were delivered."),
    "operation": ("Operation", "For load balancers and monitoring. These calls need no key."),
}
"""Title and first sentence of each part of the page, in order."""

_HEAD = """# HTTP reference

Generated from the OpenAPI document, which every gateway serves as `/openapi.json`; its `/docs` is an interactive
form of this page. [HTTP by example](../guides/http_by_example.md) shows the same calls with real answers.

Send the API key as `Authorization: Bearer emx_…`. Each call below names the scope that the key needs. A gateway
without keys listens on loopback only and asks for none.

Errors are problem documents (RFC 9457, `application/problem+json`). Programs decide by `type`, which is stable;
`detail` is a sentence for people.

"""
_BASE = "http://127.0.0.1:8000"
_LONGEST_EXAMPLE = 60
"""Lines."""

Schema = dict[str, Any]
Operation = dict[str, Any]


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document of a gateway with default settings."""
    with tempfile.TemporaryDirectory() as folder:
        return create_app(Settings(store=f"file:{folder}")).openapi()


def http_reference() -> str:
    """Return the page."""
    document = openapi_document()
    found = list(_operations(document))
    unknown = {operation["tags"][0] for _, _, operation in found} - TAGS.keys()
    if unknown:
        raise ValueError(f"Add a title for {', '.join(sorted(unknown))} to TAGS in {__file__}.")
    text = _HEAD
    for tag, (title, about) in TAGS.items():
        text += f"## {title}\n\n{about}\n\n"
        for method, path, operation in found:
            if operation["tags"][0] == tag:
                text += _operation(method, path, operation)
    text += _webhooks(document["webhooks"])
    text += "## Schemas\n\nFields of the answers. Times are RFC 3339 in UTC.\n\n"
    for name, schema in document["components"]["schemas"].items():
        text += _named_schema(name, schema)
    return text


def _webhooks(webhooks: dict[str, Any]) -> str:
    text = "## Events that are sent\n\nBodies of webhooks, signed as Standard Webhooks are.\n\n"
    rows = [
        (
            f"`{name}`",
            webhook["post"]["summary"],
            _type(webhook["post"]["requestBody"]["content"]["application/json"]["schema"]),
        )
        for name, webhook in webhooks.items()
    ]
    return text + _table(("event", "when", "body"), rows)


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, Operation]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def _operation(method: str, path: str, operation: Operation) -> str:
    scope = next((scopes[0] for needed in operation.get("security", []) for scopes in needed.values()), None)
    needs = f"Scope: `{scope}`" if scope else "Needs no key"
    text = f"### {method} {path} {{ #{operation['operationId']} }}\n\n"
    text += f"{_prose(operation['description'])}\n\n{needs} · Operation: `{operation['operationId']}`\n\n"
    if parameters := operation.get("parameters"):
        rows = [
            (f"`{p['name']}`", p["in"], _type(p["schema"]), _default(p["schema"], p.get("required")), _about(p))
            for p in parameters
        ]
        text += _table(("parameter", "in", "type", "default", ""), rows)
    text += _request(operation.get("requestBody", {}))
    text += _example_call(method, path, operation)
    text += _answers(operation["responses"])
    return text


def _request(body: dict[str, Any]) -> str:
    text = ""
    for kind, content in body.get("content", {}).items():
        text += f"**Body** `{kind}`\n\n"
        schema = content.get("schema", {})
        if "properties" in schema:
            text += _fields(schema)
        elif "$ref" in schema:
            text += f"{_type(schema)}\n\n"
        elif schema.get("format") == "binary":
            text += "The image's bytes.\n\n"
        if "example" in content:
            text += _block(content["example"], kind)
    return text


def _example_call(method: str, path: str, operation: Operation) -> str:
    """Return a curl command that makes the call."""
    query = []
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", str(parameter.get("example", "ID")))
        elif parameter["in"] == "query" and parameter.get("required"):
            query.append(f"{parameter['name']}={parameter.get('example', '…')}")
    flags = "" if method == "GET" else f"-X {method} "
    if operation.get("security"):
        flags += '-H "Authorization: Bearer $EMX_API_KEY" '
    kinds = list(operation.get("requestBody", {}).get("content", {}))
    if "multipart/form-data" in kinds:
        flags = flags.replace("-X POST ", "")
        form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]["$ref"]
        many = form.endswith("/BatchForm")
        flags += "-F files=@a.png -F files=@b.dcm " if many else "-F file=@chest.png "
    elif "application/json" in kinds:
        sent = operation["requestBody"]["content"]["application/json"].get(
            "example", {"url": "https://example.org/"}
        )
        flags += f"--json '{json.dumps(sent)}' ".replace("-X POST ", "")
    elif method == "PUT":
        flags = flags.replace("-X PUT ", "") + "-T chest.png "
    url = f"{_BASE}{path}{'?' + '&'.join(query) if query else ''}"
    return f"```sh\ncurl {flags}{chr(39) + url + chr(39) if '&' in url else url}\n```\n\n"


def _answers(responses: dict[str, Any]) -> str:
    text = ""
    for status, response in responses.items():
        if int(status) < 400 or not _is_problem(response):
            text += _success(status, response)
    problems = []
    for status, response in responses.items():
        if int(status) >= 400 and _is_problem(response):
            example = next(iter(response["content"].values())).get("example", {})
            kind = example.get("type", "").removeprefix("urn:explainmyxray:problem:")
            problems.append((status, f"`{kind}`", example.get("detail", "")))
    if problems:
        text += "Problems, with the most usual `type` of each status (after `urn:explainmyxray:problem:`):\n\n"
        text += _table(("status", "type", "detail, for example"), sorted(problems))
    return text


def _is_problem(response: dict[str, Any]) -> bool:
    return any("problem" in kind for kind in response.get("content", {}))


def _success(status: str, response: dict[str, Any]) -> str:
    phrase = HTTPStatus(int(status)).phrase
    said = response.get("description", "")
    said = "" if said == "Successful Response" else f". {said}"
    headers = ", ".join(f"`{name}`" for name in response.get("headers", {}))
    text = f"**Answer {status}** {phrase}{said}{f'. Headers: {headers}' if headers else ''}\n\n"
    for kind, content in response.get("content", {}).items():
        named = _type(content["schema"]) if "$ref" in content.get("schema", {}) else ""
        text += f"`{kind}`{f', {named}' if named else ''}\n\n"
        if "example" in content:
            text += _block(content["example"], kind)
    return text


def _block(example: Any, kind: str) -> str:
    language = "json" if "json" in kind else "text"
    shown = example if isinstance(example, str) else json.dumps(example, indent=2, ensure_ascii=False)
    lines = shown.rstrip("\n").splitlines()
    if len(lines) > _LONGEST_EXAMPLE:
        lines = [*lines[:_LONGEST_EXAMPLE], "…"]
    body = "\n".join(f"    {line}" for line in [f"```{language}", *lines, "```"])
    return f'??? example "Example"\n\n{body}\n\n'


def _named_schema(name: str, schema: Schema) -> str:
    text = f"### {name} {{ #schema-{name.lower()} }}\n\n{_prose(schema.get('description', ''))}\n\n"
    if "enum" in schema:
        return text + ", ".join(f"`{value}`" for value in schema["enum"]) + "\n\n"
    if "oneOf" in schema:  # an event: its name, and the shape of its data
        parts = [each["properties"] for each in schema["oneOf"]]
        rows = [(f"`{part['event']['const']}`", _type(part["data"]["contentSchema"])) for part in parts]
        return text + _table(("event", "data"), rows)
    return text + _fields(schema)


def _fields(schema: Schema) -> str:
    required = schema.get("required", [])
    rows = [
        (f"`{name}`", _type(field), _default(field, name in required), field.get("description", ""))
        for name, field in schema["properties"].items()
    ]
    return _table(("field", "type", "default", ""), rows)


def _type(schema: Schema) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#schema-{name.lower()})"
    if "anyOf" in schema:
        kinds = [kind for kind in schema["anyOf"] if kind.get("type") != "null" and kind.get("const") != ""]
        return " or ".join(dict.fromkeys(map(_type, kinds)))
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = str(schema.get("type", "any"))
    if kind == "array":
        if "prefixItems" in schema:
            return f"array of {len(schema['prefixItems'])} {_type(schema['prefixItems'][0])}s"
        return f"array of {_type(schema.get('items', {}))}"
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"object of {_type(values)}" if isinstance(values, dict) else "object"
    return {"date-time": "time", "binary": "file"}.get(schema.get("format", ""), kind) + _bounds(schema)


def _bounds(schema: Schema) -> str:
    low = schema.get("minimum", schema.get("minLength"))
    high = schema.get("maximum", schema.get("maxLength"))
    what = " characters" if "maxLength" in schema else ""
    if low is not None and high is not None:
        return f", {low:g} to {high:.0f}{what}"
    if low is not None:
        return f", at least {low:g}"
    return "" if high is None else f", at most {high:g}{what}"


def _default(schema: Schema, required: bool | None) -> str:
    if required:
        return "**required**"
    value = schema.get("default")
    if isinstance(value, str) and len(value) > 40:
        return ""
    return "" if value in (None, {}, []) else f"`{json.dumps(value)}`"


def _about(parameter: dict[str, Any]) -> str:
    about = parameter.get("description", "")
    if "example" not in parameter:
        return str(about)
    return f"{about}{'. ' if about else ''}For example `{parameter['example']}`"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines) + "\n\n"


def _cell(text: str) -> str:
    return _prose(str(text)).replace("|", "\\|").replace("\n", " ")


def _prose(text: str) -> str:
    return text.replace("``", "`")
