"""Clients of the service: they submit with and without keys, ask, cancel, erase patients and send batches."""

import io
import itertools
import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
from PIL import Image

from emx_shared.ledger.batches.manifest_pages import item_id
from tests.chaos.book import Book, Promise

FEWEST = 6
"""Jobs that are submitted at least: of each kind one, and of a batch's two."""

_PAUSE_SECONDS = 0.15
_TIMEOUT = httpx.Timeout(4.0, connect=1.0)
_THREADS = 24
_TEMPORARY = (429, 502, 503, 504, 507)
_SECRET_BYTES = 48
"""Of an erased patient's image, that are looked for afterwards."""


Files = list[tuple[str, tuple[str, bytes]]]


class Unanswered(Exception):
    """A request that was tried for long enough."""


class Load:
    """Clients of all gateways, of whom each tries another gateway when one doesn't answer."""

    def __init__(self, gateways: list[str], hook: str, book: Book, seed: int, patience: float) -> None:
        """Make the clients.

        Args:
            gateways: addresses.
            hook: where events are to be sent.
            book: takes down what was accepted.
            seed: of the images and pauses.
            patience: seconds for which a client tries again.
        """
        self.gateways, self.hook, self._book = gateways, hook, book
        self._random, self._patience = random.Random(seed), patience
        self._next = itertools.count()
        self._client = httpx.Client(timeout=_TIMEOUT, limits=httpx.Limits(max_connections=64))
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="client")

    def give_up(self) -> None:
        """Let no client try again."""
        self._patience = 0.0

    def close(self) -> None:
        """Let the clients go."""
        self.give_up()
        self._threads.shutdown(cancel_futures=True)
        self._client.close()

    @contextmanager
    def running(self, row: str, jobs: int) -> Iterator[None]:
        """Have about so many jobs submitted while the block runs; then wait until all clients have answers."""
        wanted: list[Callable[[str], object]] = [
            self.submit,
            self.submit_without_key,
            self.submit_and_cancel,
            self.submit_and_erase,
            self.submit_batch,
        ]
        for _ in range((jobs - FEWEST) // 2):
            wanted += [self.submit, self.submit_without_key]
        clients = [self._threads.submit(client, row) for client in wanted]
        try:
            yield
        finally:
            for client in clients:
                self._settle(client, row)

    def submit(self, row: str, key: str | None = None, data: bytes | None = None) -> str:
        """Submit an image with a key, as often as it takes. Return the job's id."""
        key = key or str(uuid.uuid4())
        return self._submit(row, data or self.image(), key)

    def submit_without_key(self, row: str) -> None:
        """Submit an image once, and ask for the job; what isn't answered may have been accepted all the same."""
        try:
            answer = self._client.post(f"{self._gateway()}/v1/jobs", **self._form(self.image()))
        except httpx.TransportError:
            return
        if answer.status_code == httpx.codes.ACCEPTED:
            id = answer.json()["id"]
            self._book.accept([Promise(id, row, "job", hooked=True)], None)
            self._look(row, id)
        elif answer.status_code == httpx.codes.INTERNAL_SERVER_ERROR:
            self._book.remark(row, "answers 500")

    def submit_and_cancel(self, row: str) -> None:
        """Submit an image and cancel its job, which may have ended by then."""
        id = self.submit(row)
        self.cancel(row, id)

    def cancel(self, row: str, id: str) -> None:
        """Cancel a job."""
        self._book.may_end(id, "cancelled")
        self.ask(row, "POST", f"/v1/jobs/{id}/cancel", final=(404, 409))

    def submit_and_erase(self, row: str, pause: float = 0.3) -> None:
        """Submit an image of a patient, and erase the patient a moment later."""
        data, secret = self.image(), f"secret{uuid.uuid4().hex}"
        more = {"patient": secret, "study": f"{secret}-study", "indication": secret}
        id = self._submit(row, data, str(uuid.uuid4()), more)
        time.sleep(self._random.uniform(0, pause))
        self.erase(row, secret, data, [id])

    def submit_review_and_erase(self, row: str) -> None:
        """Submit an image of a patient, comment on its report where it has one, and erase the patient at once."""
        data, secret = self.image(), f"secret{uuid.uuid4().hex}"
        id = self._submit(row, data, str(uuid.uuid4()), {"patient": secret})
        self.ask(row, "GET", f"/v1/jobs/{id}?wait=5", final=(404,))
        said = {"reviewer": "AB", "verdict": "disagree", "comment": secret}
        self.ask(row, "POST", f"/v1/jobs/{id}/feedback", final=(404, 409), json=said)
        self.erase(row, secret, data, [id])

    def erase(self, row: str, patient: str, data: bytes, jobs: list[str]) -> None:
        """Erase a patient, whose name and image nobody may find afterwards."""
        self._book.erasing(jobs)
        self.ask(row, "DELETE", f"/v1/jobs?patient={patient}")
        for secret in (patient.encode(), _secret_of(data)):
            self._book.keep_secret(row, secret)

    def erase_job(self, row: str, id: str) -> None:
        """Erase a job."""
        self._book.erasing([id])
        self.ask(row, "DELETE", f"/v1/jobs/{id}", final=(404,))

    def is_ready(self, gateway: str) -> bool:
        """Return whether a gateway answers."""
        try:
            return self._client.get(f"{gateway}/healthz").is_success
        except httpx.TransportError:
            return False

    def submit_batch(
        self, row: str, key: str | None = None, files: Files | None = None, paused: bool = False
    ) -> str:
        """Send a batch of two files. Return its id. A paused one waits until it is resumed."""
        key, files = key or str(uuid.uuid4()), files or self.files()
        options = {**self._batch_options(), "paused": json.dumps(paused)}
        headers = {"Idempotency-Key": key}
        id = str(self.ask(row, "POST", "/v1/batches", files=files, data=options, headers=headers).json()["id"])
        self._accept_batch(row, id, len(files), key)
        return id

    def submit_manifest(self, row: str) -> str:
        """Send a batch whose manifest names an upload. Return its id."""
        key, image = str(uuid.uuid4()), self.upload(row)
        options = self._batch_options()
        headers = {"Idempotency-Key": key, "Content-Type": "application/x-ndjson"}
        line = f'{{"image": "upload:{image}"}}\n'
        answer = self.ask(row, "POST", "/v1/batches", content=line, params=options, headers=headers)
        id = str(answer.json()["id"])
        self._accept_batch(row, id, 1, key)
        return id

    def pause_and_resume(self, row: str, batch: str) -> None:
        """Pause a batch and resume it, if it hasn't ended."""
        for act in ("pause", "resume"):
            self.ask(row, "POST", f"/v1/batches/{batch}/{act}", final=(409,))

    def cancel_batch(self, row: str, batch: str) -> None:
        """Cancel a batch with its items."""
        self._book.may_end(batch, "cancelled")
        self._book.release(self._items(batch))
        self.ask(row, "POST", f"/v1/batches/{batch}/cancel", final=(409,))

    def erase_batch(self, row: str, batch: str, files: Files) -> None:
        """Erase a batch with its items, whose images nobody may find afterwards."""
        self._book.erasing([batch])
        self._book.release(self._items(batch))
        self.ask(row, "DELETE", f"/v1/batches/{batch}", final=(404,))
        for _, (_, data) in files:
            self._book.keep_secret(row, _secret_of(data))

    def submit_upload(self, row: str) -> str:
        """Submit an image that was uploaded before. Return the job's id."""
        key, form = str(uuid.uuid4()), {"upload": self.upload(row), "webhook_url": self.hook}
        headers = {"Idempotency-Key": key}
        id = str(self.ask(row, "POST", "/v1/jobs", headers=headers, json=form).json()["id"])
        self._book.accept([Promise(id, row, "job", hooked=True)], key)
        return id

    def upload(self, row: str) -> str:
        """Upload an image before its submission. Return the upload's id."""
        key = str(uuid.uuid4())
        began = time.monotonic()
        while True:
            made = self.ask(row, "POST", "/v1/uploads", headers={"Idempotency-Key": key}).json()
            if made["received"]:
                return str(made["id"])
            try:
                self._client.put(made["url"], content=self.image(), headers={"Content-Type": "image/png"})
            except httpx.TransportError:
                if time.monotonic() > began + self._patience:
                    raise Unanswered("an upload") from None

    def ask(
        self, row: str, method: str, path: str, *, final: tuple[int, ...] = (), **options: Any
    ) -> httpx.Response:
        """Send a request until it is answered.

        Args:
            row: for remarks.
            method: of HTTP.
            path: at any gateway.
            final: statuses that end the tries beside success.
            options: as ``httpx.Client.request`` takes them.

        Raises:
            Unanswered: nobody gave an answer that ends the tries, or one that forbids more.
        """
        began, last = time.monotonic(), "no answer"
        while time.monotonic() < began + self._patience:
            try:
                answer = self._client.request(method, f"{self._gateway()}{path}", **options)
            except httpx.TransportError as error:
                last = type(error).__name__
            else:
                if answer.is_success or answer.status_code in final:
                    return answer
                last = f"{answer.status_code} {answer.text[:200]}"
                if answer.status_code == httpx.codes.INTERNAL_SERVER_ERROR:
                    self._book.remark(row, "answers 500")
                elif answer.status_code not in _TEMPORARY:
                    raise Unanswered(f"{method} {path.partition('?')[0]}: {last}")
            time.sleep(_PAUSE_SECONDS * self._random.uniform(0.5, 1.5))
        raise Unanswered(f"{method} {path.partition('?')[0]}: {last}")

    def image(self) -> bytes:
        """Return a PNG of noise that no other has."""
        noise = np.frombuffer(self._random.randbytes(64 * 48), np.uint8).reshape(48, 64)
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, "PNG")
        return buffer.getvalue()

    def files(self) -> Files:
        """Return two images as files of a form."""
        return [("files", (f"{number}.png", self.image())) for number in range(2)]

    def _batch_options(self) -> dict[str, str]:
        return {"webhook_url": self.hook, "item_webhook_url": self.hook, "priority": "routine"}

    def _accept_batch(self, row: str, id: str, rows: int, key: str) -> None:
        items = tuple(item_id(id, number) for number in range(rows))
        batch = Promise(id, row, "batch", hooked=True, items=items)
        self._book.accept([batch, *(Promise(item, row, "item", hooked=True) for item in items)], key)

    def _items(self, batch: str) -> tuple[str, ...]:
        return next(promise.items for promise in self._book.promises if promise.id == batch)

    def _submit(self, row: str, data: bytes, key: str, more: dict[str, str] | None = None) -> str:
        form = self._form(data, **(more or {}))
        answer = self.ask(row, "POST", "/v1/jobs", headers={"Idempotency-Key": key}, **form).json()
        self._book.accept([Promise(answer["id"], row, "job", hooked=True)], key)
        self._look(row, answer["id"])
        return str(answer["id"])

    def _look(self, row: str, id: str) -> None:
        """Ask for a job once: whoever was told its id must find it."""
        try:
            answer = self._client.get(f"{self._gateway()}/v1/jobs/{id}")
        except httpx.TransportError:
            return
        if answer.status_code == httpx.codes.INTERNAL_SERVER_ERROR:
            self._book.remark(row, "answers 500")
        elif answer.status_code == httpx.codes.NOT_FOUND:
            self._book.remark(row, "accepted jobs answered 404")

    def _form(self, data: bytes, **more: str) -> dict[str, Any]:
        return {"files": {"file": ("x.png", data)}, "data": {"webhook_url": self.hook, **more}}

    def _gateway(self) -> str:
        return self.gateways[next(self._next) % len(self.gateways)]

    def _settle(self, client: "Future[object]", row: str) -> None:
        try:
            client.result()
        except Unanswered as error:
            self._book.give_up(row, str(error))


def _secret_of(image: bytes) -> bytes:
    """Return bytes from the middle of an image's file, which no other file has."""
    middle = len(image) // 2
    return image[middle : middle + _SECRET_BYTES]


def in_parallel(*calls: Callable[[], object]) -> None:
    """Run calls at the same time, each in a thread, and wait for all. Raises what the first that failed raised."""
    with ThreadPoolExecutor(len(calls)) as threads:
        together = threading.Barrier(len(calls))

        def run(call: Callable[[], object]) -> None:
            together.wait()
            call()

        for done in [threads.submit(run, call) for call in calls]:
            done.result()
