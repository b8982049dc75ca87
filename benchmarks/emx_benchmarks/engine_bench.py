"""The engine beside transformers' ``generate``, on the same weights, images, prompt and grammar."""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import torch
from PIL import Image

from emx_shared.contracts.report import Report
from emx_training.evaluate.phantom_reader import study_of
from emx_training.phantoms import held_out_seeds, render
from emx_worker.backends.engine_thread import EngineThread
from emx_worker.engine.engine import Engine
from emx_worker.engine.reference import Written, generated
from emx_worker.engine.sequence import Sequence as EngineSequence
from emx_worker.model.loading import LoadedModel
from emx_worker.report_builder import Study

T = TypeVar("T")


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        studies: that the engine reads in each round, of which ``concurrency`` are handed in at any time.
        static: that ``generate`` reads as a batch in each round.
        single: that ``generate`` reads one at a time in each round.
    """

    rounds: int = 3
    studies: int = 128
    concurrency: int = 32
    static: int = 32
    single: int = 4


@dataclass
class Measured:
    """One way to read studies.

    Attributes:
        rates: studies per second, of each round.
        first: seconds until a study's first token, from when it was handed in; of each study.
    """

    rates: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0

    def add(self, tokens: Sequence[int], first: Sequence[float], seconds: float) -> None:
        """A round's studies: tokens of each, seconds until the first of each, seconds in all."""
        self.rates.append(len(tokens) / seconds)
        self.first.extend(first)
        self.tokens += sum(tokens)
        self.seconds += seconds

    def figures(self) -> dict[str, float]:
        return {
            "studies": len(self.first),
            "studies_per_second": round(statistics.median(self.rates), 3),
            "tokens_per_second": round(self.tokens / self.seconds, 1),
            "first_token_seconds": round(statistics.median(self.first), 4),
        }


def bench_engine(load: Callable[[], LoadedModel], sizes: Sizes) -> dict[str, Any]:
    """Rounds in which ``generate`` one at a time, ``generate`` in a static batch and the engine take turns.

    The engine is fed as a worker feeds it: by as many threads as there are studies in hand. Each way runs in a
    thread of its own, which ends with its turn, as threads that have computed slow each other down.

    Speed-ups are the medians of the rounds' ratios. ``tokens_identical`` is the share of the studies read one at
    a time of which the engine wrote the same tokens, those set aside that differ after a near tie.
    """
    loaded = _alone(lambda: replace(load(), guard=None))  # so that each is read
    engine = _alone(lambda: Engine(loaded, max_batch=sizes.concurrency))
    studies = phantoms(sizes)
    single, static, ours = Measured(), Measured(), Measured()
    references: dict[str, Written] = {}
    for number in range(sizes.rounds + 1):
        warming = number == 0  # a small round, which isn't counted
        at = max(number - 1, 0) * sizes.single
        one_by_one = studies[at : at + (1 if warming else sizes.single)]
        written, took = _timed(partial(one_at_a_time, loaded, one_by_one))
        batch = studies[: 2 if warming else sizes.static]
        together, took_together = _timed(partial(generated, loaded, batch))
        many = studies[: 2 if warming else sizes.studies]
        read, took_ours = feed(engine, many, sizes.concurrency)
        if warming:
            continue
        references |= {study.id: one for study, one in zip(one_by_one, written, strict=True)}
        single.add([len(one.tokens) for one in written], [one.first_seconds for one in written], took)
        static.add([len(one.tokens) for one in together], [one.first_seconds for one in together], took_together)
        ours.add([tokens for tokens, _ in read], [first for _, first in read], took_ours)
    ties, same = _alone(lambda: compare(engine, studies, references))
    return {
        "model": loaded.provenance.name,
        "quantisation": loaded.provenance.quantisation,
        "device": str(loaded.device),
        "threads": torch.get_num_threads(),
        "rounds": sizes.rounds,
        "concurrency": sizes.concurrency,
        "generate": single.figures(),
        "static_batch": {"batch": sizes.static, **static.figures()},
        "engine": ours.figures(),
        "speedup_vs_generate": _ratio(ours, single),
        "speedup_vs_static_batch": _ratio(ours, static),
        "compared": len(references),
        "tokens_identical": round(same / max(len(references) - ties, 1), 4),
        "near_tie_fraction": round(ties / len(references), 4),
    }


def phantoms(sizes: Sizes) -> list[Study]:
    """Held-out phantoms, enough for every part."""
    count = max(sizes.studies, sizes.static, sizes.single * sizes.rounds)
    return [study_of(str(seed), Image.fromarray(render(seed).image)) for seed in held_out_seeds(count)]


def feed(engine: Engine, studies: Sequence[Study], threads: int) -> tuple[list[tuple[int, float]], float]:
    """Read studies. Of each, the tokens of its report, and the seconds until the first; and the seconds of all."""
    thread = EngineThread(lambda: engine)

    def read(study: Study) -> tuple[int, float]:
        began = time.perf_counter()
        report = thread.read(study)
        assert isinstance(report, Report), report
        return report.tokens.generated, time.perf_counter() - began - report.timings.generate

    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        read_all = list(pool.map(read, studies))
        took = time.perf_counter() - began
    thread.close()
    return read_all, took


def one_at_a_time(loaded: LoadedModel, studies: Sequence[Study]) -> list[Written]:
    return [generated(loaded, [study])[0] for study in studies]


def compare(engine: Engine, studies: Sequence[Study], references: dict[str, Written]) -> tuple[int, int]:
    """Of the studies with a reference: how many differ after a near tie, and how many are the same.

    They arrive in another order, now and then some, so that they join batches of all sizes.
    """
    waiting = [engine.sequence(study) for study in studies if study.id in references]
    drawn, ended = random.Random(0), list[EngineSequence]()
    drawn.shuffle(waiting)
    while waiting or engine.busy:
        for _ in range(min(drawn.choice((0, 0, 1, 5)), len(waiting))):
            engine.add(waiting.pop())
        ended += engine.step()
    pairs = [(references[sequence.study.id], tuple(sequence.tokens)) for sequence in ended]
    return sum(one.near_tie(tokens) for one, tokens in pairs), sum(one.tokens == tokens for one, tokens in pairs)


def _alone(work: Callable[[], T]) -> T:
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    def timed() -> tuple[T, float]:
        began = time.perf_counter()
        return work(), time.perf_counter() - began

    return _alone(timed)


def _ratio(ours: Measured, other: Measured) -> float:
    return round(statistics.median(a / b for a, b in zip(ours.rates, other.rates, strict=True)), 2)
