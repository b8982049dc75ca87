"""Everything that can be asked of a server, as flows that both clients carry out."""

import json
import math
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx

from emx_shared.contracts.report import Report
from explainmyxray.client.errors import Conflict, NoReport, StillRunning
from explainmyxray.client.exchange import Call, Flow, Pause, exchange
from explainmyxray.client.patience import Patience
from explainmyxray.client.resources import (
    Batch,
    BatchChange,
    BatchItems,
    BatchOptions,
    Erased,
    Job,
    JobFilter,
    JobOptions,
    JobPage,
    ManifestKind,
    R,
    Readiness,
    RenderingKind,
    Upload,
    read_json,
)

LONGEST_POLL = 30.0
"""Seconds that the server is asked to hold an answer back; proxies cut off what takes a minute."""

_BETWEEN_LOOKS = 1.0
"""Seconds between looks at a batch, and the least between polls."""


def id_of(found: Job | Batch | str) -> str:
    return quote(found if isinstance(found, str) else found.id, safe="")


@dataclass(frozen=True)
class Api:
    patience: Patience

    def submit(self, image: bytes | Upload, options: JobOptions, idempotency_key: str | None) -> Flow[Job]:
        """With a key of its own, a submission may be sent again without a second job."""
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        call: Call[Job]
        if isinstance(image, Upload):
            body = {"upload": image.id, **_given(options)}
            call = Call("POST", "/v1/jobs", _as(Job), json=body, headers=headers)
        else:
            form = _texts(options)
            call = Call("POST", "/v1/jobs", _as(Job), form=form, files=[("file", image)], headers=headers)
        return (yield from exchange(call, self.patience))

    def read(
        self, image: bytes | Upload, options: JobOptions, idempotency_key: str | None, timeout: float | None
    ) -> Flow[Job]:
        job = yield from self.submit(image, options, idempotency_key)
        ended = yield from self.wait(job, timeout)
        if ended.report is None:
            raise NoReport(ended)
        return ended

    def job(self, job: Job | str, wait: int = 0) -> Flow[Job]:
        params = {"wait": str(wait)} if wait else {}
        call = Call("GET", f"/v1/jobs/{id_of(job)}", _as(Job), params=params, patience=wait)
        return (yield from exchange(call, self.patience))

    def wait(self, job: Job | str, timeout: float | None) -> Flow[Job]:
        give_up = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            asked = time.monotonic()
            found = yield from self.job(job, math.ceil(max(0.0, min(LONGEST_POLL, give_up - asked))))
            if found.ended:
                return found
            now = time.monotonic()
            if now >= give_up:
                raise StillRunning(f"The job is {found.state} after {timeout:g} s. It goes on.")
            if now - asked < _BETWEEN_LOOKS:  # a server that is stopping lets go of those who wait
                yield Pause(min(_BETWEEN_LOOKS, give_up - now))

    def page(self, wanted: JobFilter, cursor: str | None) -> Flow[JobPage]:
        params = _texts(wanted) | {"limit": "100"} | ({"cursor": cursor} if cursor else {})
        return (yield from exchange(Call("GET", "/v1/jobs", _as(JobPage), params=params), self.patience))

    def cancel(self, job: Job | str) -> Flow[Job]:
        call = Call("POST", f"/v1/jobs/{id_of(job)}/cancel", _as(Job))
        try:
            return (yield from exchange(call, self.patience))
        except Conflict:
            found = yield from self.job(job)
            if found.state != "cancelled":
                raise
            return found

    def erase(self, job: Job | str) -> Flow[None]:
        call = Call("DELETE", f"/v1/jobs/{id_of(job)}", _nothing, done_if_repeated=(404,))
        return (yield from exchange(call, self.patience))

    def erase_group(self, kind: str, name: str) -> Flow[int]:
        erased = yield from exchange(Call("DELETE", "/v1/jobs", _as(Erased), params={kind: name}), self.patience)
        return erased.erased

    def report(self, job: Job | str) -> Flow[Report]:
        call = Call("GET", f"/v1/jobs/{id_of(job)}/report.json", _as(Report))
        return (yield from exchange(call, self.patience))

    def rendering(self, job: Job | str, kind: RenderingKind) -> Flow[bytes]:
        if kind == "png":
            return (yield from self.overlay(job, None))
        call = Call("GET", f"/v1/jobs/{id_of(job)}/report.{kind}", _bytes)
        return (yield from exchange(call, self.patience))

    def overlay(self, job: Job | str, longest_side: int | None) -> Flow[bytes]:
        params = {"longest_side": str(longest_side)} if longest_side else {}
        call = Call("GET", f"/v1/jobs/{id_of(job)}/overlay.png", _bytes, params=params)
        return (yield from exchange(call, self.patience))

    def upload(self, image: bytes) -> Flow[Upload]:
        room = yield from exchange(Call("POST", "/v1/uploads", _as(Upload)), self.patience)
        put = Call(room.method, room.url, _nothing, content=image, keyed=False)
        yield from exchange(put, self.patience)
        return room

    def submit_manifest(
        self, manifest: bytes, kind: ManifestKind, options: BatchOptions, idempotency_key: str | None
    ) -> Flow[Batch]:
        """With a key of its own, it may be sent again without a second batch."""
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4()), "Content-Type": kind}
        call = Call("POST", "/v1/batches", _as(Batch), params=_texts(options), headers=headers, content=manifest)
        return (yield from exchange(call, self.patience))

    def items(self, batch: Batch | str, row: int) -> Flow[BatchItems]:
        params = {"row": str(row), "limit": "1000"}
        call = Call("GET", f"/v1/batches/{id_of(batch)}/items", _as(BatchItems), params=params)
        return (yield from exchange(call, self.patience))

    def change_batch(self, batch: Batch | str, change: BatchChange) -> Flow[Batch]:
        headers = {"Idempotency-Key": str(uuid.uuid4())} if change == "retry" else {}
        call = Call("POST", f"/v1/batches/{id_of(batch)}/{change}", _as(Batch), headers=headers)
        return (yield from exchange(call, self.patience))

    def batch(self, batch: Batch | str) -> Flow[Batch]:
        return (yield from exchange(Call("GET", f"/v1/batches/{id_of(batch)}", _as(Batch)), self.patience))

    def next_look(self, batch: Batch | str, before: Batch | None, give_up: float) -> Flow[Batch]:
        """The batch as soon as it differs from what it was. ``give_up``: by the monotonic clock."""
        while True:
            if before is not None:
                yield Pause(_BETWEEN_LOOKS)
            found = yield from self.batch(batch)
            if found.ended or before is None or found.counts != before.counts:
                return found
            if time.monotonic() >= give_up:
                raise StillRunning(f"{found.done} of {found.total} have ended. The batch goes on.")

    def cancel_batch(self, batch: Batch | str) -> Flow[Batch]:
        call = Call("POST", f"/v1/batches/{id_of(batch)}/cancel", _as(Batch))
        try:
            return (yield from exchange(call, self.patience))
        except Conflict:
            found = yield from self.batch(batch)
            if found.state != "cancelled":
                raise
            return found

    def erase_batch(self, batch: Batch | str) -> Flow[None]:
        call = Call("DELETE", f"/v1/batches/{id_of(batch)}", _nothing, done_if_repeated=(404,))
        return (yield from exchange(call, self.patience))

    def ready(self) -> Flow[Readiness]:
        """A server that isn't ready says so with 503, which is an answer here."""
        call = Call("GET", "/readyz", _as(Readiness), answers=(503,))
        return (yield from exchange(call, self.patience))


def manifest_of(uploads: Iterable[tuple[Upload, str | None]]) -> bytes:
    """The manifest of images that were uploaded, with the client's names for them."""
    rows = ({"image": f"upload:{upload.id}", "name": name} for upload, name in uploads)
    return "".join(json.dumps(_given(row)) + "\n" for row in rows).encode()


def _as(kind: type[R]) -> Callable[[httpx.Response], R]:
    return lambda answer: read_json(kind, answer.content)


def _bytes(answer: httpx.Response) -> bytes:
    return answer.content


def _nothing(answer: httpx.Response) -> None:
    return None


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _texts(options: Mapping[str, Any]) -> dict[str, str]:
    """For a form or a query, in which all is text."""
    return {name: _text(value) for name, value in _given(options).items()}


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return json.dumps(value) if isinstance(value, dict) else str(value)
