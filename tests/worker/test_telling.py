"""Those who watch a job see its report being written."""

import time
from typing import Any

from emx_shared.redis_state import RedisState
from emx_worker.text_publisher import EVERY, Teller


def told(redis_state: RedisState, job: str) -> list[tuple[Any, Any]]:
    return [(piece["offset"], piece["text"]) for _, piece in redis_state.live_text.text_since(job, "0-0")]


def test_text_of_watched_jobs_is_told_piece_by_piece(redis_state: RedisState) -> None:
    texts = {"watched": "FINDINGS: ", "other": "FINDINGS: "}
    teller = Teller(redis_state, lambda: dict(texts))
    redis_state.live_text.watch("watched")
    time.sleep(3 * EVERY)
    texts["watched"] += "Clear."
    time.sleep(3 * EVERY)
    texts["watched"] = "FIND"  # another worker's, or read again
    time.sleep(3 * EVERY)
    teller.close()
    assert told(redis_state, "watched") == [(0, "FINDINGS: "), (10, "Clear."), (0, "FIND")]
    assert told(redis_state, "other") == []


def test_the_engine_shows_what_it_has_written(ledger: Any, engine: Any, studies: Any) -> None:
    from emx_worker.backends.engine_thread import EngineThread

    thread, seen = EngineThread(lambda: engine), set[str]()
    go_on = engine._runner.go_on

    def look(batch: Any) -> Any:
        seen.update(thread.written().values())
        return go_on(batch)

    engine._runner.go_on = look
    (study,) = studies(1)
    thread.read(study)
    engine._runner.go_on = go_on
    assert len(seen) > 3
    assert all(text.startswith("FINDINGS: ") for text in seen)
    assert thread.written() == {}
    thread.close()
