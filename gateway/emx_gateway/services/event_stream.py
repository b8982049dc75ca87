"""Every event of a tenant as it happens, signed as a webhook would be."""

import json
from collections.abc import AsyncIterator

from sse_starlette import ServerSentEvent
from starlette.concurrency import run_in_threadpool

from emx_gateway.auth.audit import RequestAudit
from emx_gateway.auth.authenticator import Caller
from emx_gateway.services.services import Services
from emx_gateway.services.webhook_sender import Sender, webhook_event
from emx_shared.ledger import event_type
from emx_shared.ledger.records import Delivery, Tombstone


async def tenant_events(services: Services, caller: Caller, audit: RequestAudit) -> AsyncIterator[ServerSentEvent]:
    """Yield the signed events of the caller's tenant from now on."""
    ledger, sender = services.ledger, Sender(services.ledger)

    def signed(id: str) -> ServerSentEvent | None:
        record, outcome = ledger.record(id), ledger.outcome(id)
        if record is None or isinstance(record, Tombstone) or outcome is None or record.tenant != caller.tenant:
            return None
        kind = event_type(record, outcome)
        message = Delivery.id_of(id, "listen", kind)
        body, headers = sender.signed(caller.tenant, message, webhook_event(ledger, id, kind, outcome.finished_at))
        if outcome.report:
            audit.note(caller, "report.read", id)
        return ServerSentEvent(json.dumps({"headers": headers, "body": body.decode()}), event=kind, id=message)

    with services.updates.subscribe_to_all() as ended:
        while True:
            event = await run_in_threadpool(signed, await ended.get())
            if event is not None:
                yield event
