"""Server-sent events of a job (WHATWG HTML, 9.2)."""

import json
import re
from collections.abc import AsyncIterator

from sse_starlette import ServerSentEvent
from starlette.concurrency import run_in_threadpool

from emx_gateway.api.schemas import job_resource
from emx_gateway.services.service import Service
from emx_gateway.services.waiting import pause
from emx_shared.ledger.records import Request

LOOK_AGAIN = 1.0
"""Seconds after which the job is looked at again, if nothing is heard of it."""

_ID = re.compile(r"(\d+-\d+):(\w+)")
_BEGINNING = "0-0"


async def job_events(service: Service, request: Request, last_id: str | None) -> AsyncIterator[ServerSentEvent]:
    """Until the job has ended. ``last_id``: what the client saw last; it gets what came after.

    An event's id is its place in Redis's stream and the state that was last told.
    """
    ledger, job = service.ledger, request.id
    known = _ID.fullmatch(last_id or "")
    place, state = (known[1], known[2]) if known else (_BEGINNING, "")
    with service.waiting.hearing(job) as heard:
        while True:
            await run_in_threadpool(ledger.redis.live_text.watch, job)
            outcome = await run_in_threadpool(ledger.outcome, job)
            now = await run_in_threadpool(ledger.state, job, outcome)
            if now != state:
                state = now
                yield _event("state", {"state": state}, f"{place}:{state}")
            for at, data in await run_in_threadpool(ledger.redis.live_text.text_since, job, place):
                place = at
                yield _event("text", data, f"{place}:{state}")
            if outcome:
                resource = await run_in_threadpool(job_resource, ledger, request, outcome)
                yield _event("ended", resource.model_dump(mode="json"), f"{place}:{state}")
                return
            await pause(heard, LOOK_AGAIN)


def _event(name: str, data: object, id: str) -> ServerSentEvent:
    return ServerSentEvent(json.dumps(data, separators=(",", ":")), event=name, id=id)
