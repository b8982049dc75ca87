"""Clients that watch a job see its report being written."""

import time
from typing import Any

from emx_shared.redis_state import RedisState
from emx_worker.text_publisher import POLL_SECONDS, TextPublisher


def told(redis_state: RedisState, job: str) -> list[tuple[Any, Any]]:
    return [(piece["offset"], piece["text"]) for _, piece in redis_state.live_text.text_since(job, "0-0")]


def test_text_of_watched_jobs_is_published_piece_by_piece(redis_state: RedisState) -> None:
    texts = {"watched": "FINDINGS: ", "other": "FINDINGS: "}
    publisher = TextPublisher(redis_state, lambda: dict(texts))
    redis_state.live_text.watch("watched")
    time.sleep(3 * POLL_SECONDS)
    texts["watched"] += "Clear."
    time.sleep(3 * POLL_SECONDS)
    texts["watched"] = "FIND"  # of another worker, or begun again
    time.sleep(3 * POLL_SECONDS)
    publisher.close()
    assert told(redis_state, "watched") == [(0, "FINDINGS: "), (10, "Clear."), (0, "FIND")]
    assert told(redis_state, "other") == []


def test_the_engine_shows_what_it_has_written(ledger: Any, engine: Any, tasks: Any) -> None:
    from emx_worker.backends.engine_thread import EngineThread

    thread, seen = EngineThread(lambda: engine), set[str]()
    decode_step = engine._runner.decode_step

    def look(batch: Any) -> Any:
        seen.update(thread.partial_texts().values())
        return decode_step(batch)

    engine._runner.decode_step = look
    (task,) = tasks(1)
    thread.read(task)
    engine._runner.decode_step = decode_step
    assert len(seen) > 3
    assert all(text.startswith("FINDINGS: ") for text in seen)
    assert thread.partial_texts() == {}
    thread.close()
