"""Writes guides/http_by_example.md: the calls of an integration, made to a running service, with its answers.

    python docs/generators/http_by_example.py URL > docs/guides/http_by_example.md

URL is that of a service with the demo model, such as ``./run.sh`` starts.
"""

import json
import re
import shlex
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx

from explainmyxray import verify_webhook

SAMPLE = Path(__file__).resolve().parents[2] / "models" / "demo" / "sample.png"
BASE = "http://127.0.0.1:8000"
"""Replaces the service's address in the record."""

_LONGEST = 12
"""Lines of an answer that are shown."""

INTRODUCTION = """# HTTP by example

Recorded by `docs/generators/http_by_example.py` against a running service with the demo model; a test records it
again and compares. Ids, times and sizes are replaced, and long answers are cut (`…`). The [HTTP
reference](../reference/http.md) has every call, and every gateway serves it at `/docs`.
[Integrate](integrate.md) explains what to use when.

Once the operator has created API keys, every call needs one: `Authorization: Bearer emx_…`. Errors are problem
documents (RFC 9457): `type` is a stable name for programs, `detail` a sentence for people.
"""


class Recorder:
    """Makes calls, and records each as a curl command with its answer."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=120)
        self._names: dict[str, str] = {}
        self.text = INTRODUCTION

    def say(self, text: str) -> None:
        """Add a paragraph."""
        self.text += f"\n{text}\n"

    def call(self, method: str, path: str, shown: str = "", **request: Any) -> httpx.Response:
        """Make a call. ``shown`` is the part of the curl command that says what is sent."""
        answer = self._client.request(method, path, **request)
        flags = "" if method == "GET" else f"-X {method} "
        headers = "".join(f"-H {shlex.quote(f'{k}: {v}')} " for k, v in request.get("headers", {}).items())
        command = f"curl {flags}{headers}{shown and shown + ' '}{shlex.quote(BASE + path)}"
        told = [f"HTTP/1.1 {answer.status_code} {answer.reason_phrase}"]
        told += [f"{name}: {answer.headers[name]}" for name in _TOLD if name in answer.headers]
        self.text += (
            self._plain(f"\n```console\n$ {command}\n" + "\n".join([*told, "", *_body(answer)])) + "\n```\n"
        )
        return answer

    def _plain(self, text: str) -> str:
        """Replace what differs in every record."""
        for id in re.findall(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", text):
            self._names.setdefault(id, f"{len(self._names) + 1:08x}-0000-4000-8000-000000000000")
            text = text.replace(id, self._names[id])
        text = re.sub(r"\d{4}-\d\d-\d\dT[0-9:.]+(Z|\+00:00)", "2026-01-01T00:00:00Z", text)
        text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "2026-01-01 00:00:00 UTC", text)
        text = re.sub(r"\b[0-9a-f]{64}\b", "0" * 64, text)
        text = re.sub(r"\b\d{16}-(\d+)\b", r"1767225600000000-\1", text)
        return re.sub(r"http://127\.0\.0\.1:\d+", BASE, text)


_TOLD = ("location", "retry-after", "preference-applied")
_VARYING = {"timings", "per_minute", "seconds_left", "probability", "ahead", "attempts", "started_at"}


def _body(answer: httpx.Response) -> list[str]:
    kind = answer.headers.get("content-type", "").partition(";")[0]
    if "json" not in kind or "ndjson" in kind:
        return _cut([line[:110] + ("…" if len(line) > 110 else "") for line in answer.text.splitlines()])
    told = _short(answer.json())
    if answer.status_code == 202:
        told.pop("state"), told.pop("counts", None)  # a quick worker may have begun
    return _cut(json.dumps(told, indent=2, ensure_ascii=False).splitlines())


def _short(value: Any) -> Any:
    """Drop figures that vary, and empty fields."""
    if isinstance(value, dict):
        return {
            k: _short(v)
            for k, v in value.items()
            if k not in _VARYING and v not in (None, {}, []) and k != "disclaimer"
        }
    return [_short(one) for one in value] if isinstance(value, list) else value


def _cut(lines: list[str]) -> list[str]:
    return lines if len(lines) <= _LONGEST + 2 else [*lines[:_LONGEST], "…"]


class Receiver:
    """An endpoint that keeps the first webhook it gets."""

    def __init__(self) -> None:
        self.came, self.headers, self.body = threading.Event(), {}, b""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.headers = {k.lower(): v for k, v in self.headers.items()}
                receiver.body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(204)
                self.end_headers()
                receiver.came.set()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()


def record(url: str) -> str:
    """Return the page's text."""
    api, data = Recorder(url), SAMPLE.read_bytes()
    api.say("## One image\n\nSubmit it, and wait in the same call:")
    job = api.call(
        "POST", "/v1/jobs", "-F file=@chest.png -F patient=p-17 -F 'metadata={\"site\": \"north\"}'",
        headers={"Prefer": "wait=60"}, files={"file": ("chest.png", data)},
        data={"patient": "p-17", "metadata": '{"site": "north"}'},
    ).json()["id"]  # fmt: skip
    api.say("Or take the 202 at once, and poll the job until it has ended; `wait` makes it a long poll:")
    key = str(uuid.uuid4())
    later = api.call(
        "POST", "/v1/jobs?priority=stat", "--data-binary @chest.png",
        headers={"Content-Type": "image/png", "Idempotency-Key": key}, content=data,
    )  # fmt: skip
    api.call("GET", f"{later.headers['location']}?wait=60")
    api.say(
        "The same `Idempotency-Key` gives the same job, however often it is sent; with another image, a conflict:"
    )
    api.call(
        "POST", "/v1/jobs?priority=routine", "--data-binary @chest.png",
        headers={"Content-Type": "image/png", "Idempotency-Key": key}, content=data,
    )  # fmt: skip
    api.say(
        "## The report\n\nIn the form that you accept, or by its ending: `.json`, `.txt`, `.html`, `.pdf`; "
        "the picture is `overlay.png`."
    )
    api.call("GET", f"/v1/jobs/{job}/report", headers={"Accept": "text/plain"})
    api.say("## Watching\n\nServer-sent events: the state, the text as it is written, and the end.")
    api.call("GET", f"/v1/jobs/{job}/events")
    api.say("## Errors")
    api.call("POST", "/v1/jobs", "-F file=@notes.txt", files={"file": ("notes.txt", b"not an image")})
    api.call("GET", "/v1/jobs/00000000-0000-4000-8000-000000000000")
    _webhooks(api, data)
    _batches(api, data)
    api.say("## Finding and erasing\n\nBy study or by patient, under the names that you gave them:")
    api.call("GET", "/v1/jobs?patient=p-17&limit=1")
    api.call("DELETE", "/v1/jobs?patient=p-17")
    api.call("GET", f"/v1/jobs/{job}")
    return api.text


def _webhooks(api: Recorder, data: bytes) -> None:
    api.say("## Webhooks\n\nSigned after Standard Webhooks. Create a secret first:")
    secret = api._client.post("/v1/webhooks/secrets/rotate").json()["secret"]
    answered = 'HTTP/1.1 200 OK\n\n{"secret": "whsec_…"}'
    api.text += f"\n```console\n$ curl -X POST {BASE}/v1/webhooks/secrets/rotate\n{answered}\n```\n"
    receiver = Receiver()
    api.call(
        "POST", "/v1/jobs", "-F file=@chest.png -F webhook_url=https://example.org/hook",
        files={"file": ("chest.png", data)}, data={"webhook_url": receiver.url},
    )  # fmt: skip
    if not receiver.came.wait(60):
        sys.exit("The webhook didn't come.")
    event = json.loads(receiver.body)
    verify_webhook(secret, receiver.headers, receiver.body)
    api.say(
        "When the job has ended, your endpoint gets this; `explainmyxray.verify_webhook`, or any library for "
        "Standard Webhooks, verifies it:"
    )
    told = f'"type": "{event["type"]}", "timestamp": "{event["timestamp"]}"'
    job = f'"id": "{event["data"]["id"]}", "state": "{event["data"]["state"]}", …'
    headers = (
        f"webhook-id: {receiver.headers['webhook-id']}\nwebhook-timestamp: 1767225600\nwebhook-signature: v1,…"
    )
    api.text += api._plain(f'\n```http\nPOST /hook HTTP/1.1\n{headers}\n\n{{{told}, "data": {{{job}}}}}\n```\n')


def _batches(api: Recorder, data: bytes) -> None:
    api.say("## Batches\n\nA manifest names uploads, images that the operator put into the store, or other jobs':")
    upload = api.call("POST", "/v1/uploads")
    httpx.put(upload.json()["url"], content=data)
    api.text = re.sub(r"\?tenant=[^\"]*", "?…", api.text)
    api.text += api._plain(
        f"\n```console\n$ curl -T chest.png '{BASE}/v1/uploads/{upload.json()['id']}?…'\n"
        "HTTP/1.1 204 No Content\n```\n"
    )
    manifest = f"image,name,arm\nupload:{upload.json()['id']},0001,control\nimport:2019/0002.dcm,0002,treated\n"
    api.text += api._plain(f"\n```csv\n{manifest}```\n")
    batch = api.call(
        "POST", "/v1/batches?priority=routine", "--data-binary @manifest.csv",
        headers={"Content-Type": "text/csv"}, content=manifest,
    ).headers["location"]  # fmt: skip
    api.say(
        "Results come while it runs (`follow=true` stays until the end); an invalid image fails its own row only:"
    )
    lines = api._client.get(f"{batch}/results.ndjson", params={"follow": True}).text.splitlines()
    shown = [_short(json.loads(line)) for line in lines if line]
    for line in shown:
        line.pop("report", None)
    told = "\n".join(json.dumps(line, ensure_ascii=False) for line in sorted(shown, key=lambda one: one["row"]))
    api.text += api._plain(
        f"\n```console\n$ curl '{BASE}{batch}/results.ndjson?follow=true'\nHTTP/1.1 200 OK\n\n{told}\n```\n"
    )
    api.call("GET", batch)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(record(sys.argv[1]), end="")
