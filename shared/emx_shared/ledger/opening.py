"""From the settings to a ledger, the same in every process."""

from emx_shared.ledger import Ledger
from emx_shared.messaging import CeleryQueue, celery_app
from emx_shared.redis_state import RedisState
from emx_shared.settings import Settings
from emx_shared.store import open_store


def open_ledger(settings: Settings, name: str) -> Ledger:
    """Open and check the store. Raises UnsuitableStore or StoreError with a sentence for the operator."""
    store = open_store(settings)
    store.check()
    redis_state = RedisState(settings.redis, settings.lease, settings.overtaken_after)
    return Ledger(store, redis_state, CeleryQueue(celery_app(name, settings)), settings)
