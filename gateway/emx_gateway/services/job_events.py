"""Server-sent events of a job (WHATWG HTML, 9.2)."""

import json
import re
from collections.abc import AsyncIterator

from sse_starlette import ServerSentEvent
from starlette.concurrency import run_in_threadpool

from emx_gateway.services.job_updates import pause
from emx_gateway.services.representations import job_resource
from emx_gateway.services.services import Services
from emx_shared.ledger.records import JobRecord

LOOK_AGAIN = 1.0
"""Seconds after which the job is looked at again, if there is no news of it."""

_ID = re.compile(r"(\d+-\d+):(\w+)")
_BEGINNING = "0-0"


async def job_events(services: Services, job: JobRecord, last_id: str | None) -> AsyncIterator[ServerSentEvent]:
    """Yield a job's events until it has ended.

    Args:
        services: the gateway's.
        job: which.
        last_id: the id of the last event that the client received; it gets what came after. An event's id is its
            id in Redis's stream, and the state that was last sent.
    """
    ledger, live_text = services.ledger, services.ledger.redis.live_text
    known = _ID.fullmatch(last_id or "")
    place, state = (known[1], known[2]) if known else (_BEGINNING, "")
    with services.updates.subscribe(job.id) as news:
        while True:
            await run_in_threadpool(live_text.watch, job.id)
            outcome = await run_in_threadpool(ledger.outcome, job.id)
            now = await run_in_threadpool(ledger.state, job.id, outcome)
            if now != state:
                state = now
                yield _event("state", {"state": state}, f"{place}:{state}")
            for at, piece in await run_in_threadpool(live_text.text_since, job.id, place):
                place = at
                yield _event("text", piece, f"{place}:{state}")
            if outcome:
                resource = await run_in_threadpool(job_resource, ledger, job, outcome)
                yield _event("ended", resource.model_dump(mode="json"), f"{place}:{state}")
                return
            await pause(news, LOOK_AGAIN)


def _event(name: str, data: object, id: str) -> ServerSentEvent:
    return ServerSentEvent(json.dumps(data, separators=(",", ":")), event=name, id=id)
