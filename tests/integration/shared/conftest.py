"""The ledger's suite runs on every kind of store."""

import pytest

from emx_shared.ledger import Ledger
from emx_shared.redis_state import RedisState
from emx_shared.store import Store
from support.servers import ledger_on


@pytest.fixture
def ledger(store: Store, redis_state: RedisState) -> Ledger:
    return ledger_on(store, redis_state)
