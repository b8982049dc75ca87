"""Measures the engine beside transformers' ``generate``, with the same weights, images, prompt and grammar."""

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
from emx_training.evaluate.phantom_reader import image_task_of
from emx_training.phantoms import held_out_seeds, render
from emx_worker.backends.engine_thread import EngineThread
from emx_worker.engine.engine import Engine
from emx_worker.engine.reference import ReferenceGeneration, generate_reference
from emx_worker.engine.sequence import ReportSequence
from emx_worker.image_task import ImageTask
from emx_worker.model.loading import LoadedModel

T = TypeVar("T")


@dataclass(frozen=True)
class EngineBenchSizes:
    """How much the engine benchmark measures.

    Attributes:
        rounds: in which the candidates take turns.
        images: that the engine reads in each round.
        concurrency: how many of these are submitted at any time.
        static: images that ``generate`` reads as one batch in each round.
        single: images that ``generate`` reads one at a time in each round.
    """

    rounds: int = 3
    images: int = 128
    concurrency: int = 32
    static: int = 32
    single: int = 4


@dataclass
class EngineMeasurement:
    """The figures of one way to read images.

    Attributes:
        rates: images per second in each round.
        first: seconds from an image's submission to its first token, of each image.
        tokens: written in all rounds.
        seconds: of all rounds.
    """

    rates: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0

    def add(self, tokens: Sequence[int], first: Sequence[float], seconds: float) -> None:
        """Add a round.

        Args:
            tokens: how many each image's report has.
            first: seconds until each image's first token.
            seconds: of the whole round.
        """
        self.rates.append(len(tokens) / seconds)
        self.first.extend(first)
        self.tokens += sum(tokens)
        self.seconds += seconds

    def add_references(self, references: Sequence[ReferenceGeneration], seconds: float) -> None:
        """Add a round of ``generate``."""
        self.add([len(each.tokens) for each in references], [each.first_seconds for each in references], seconds)

    def figures(self) -> dict[str, float]:
        """Return the figures as the command prints them: medians of rates and first tokens."""
        return {
            "studies": len(self.first),
            "studies_per_second": round(statistics.median(self.rates), 3),
            "tokens_per_second": round(self.tokens / self.seconds, 1),
            "first_token_seconds": round(statistics.median(self.first), 4),
        }


def bench_engine(load: Callable[[], LoadedModel], sizes: EngineBenchSizes) -> dict[str, Any]:
    """Measure ``generate`` one at a time, ``generate`` in a static batch and the engine, which take turns.

    The engine is fed as a worker feeds it: by as many threads as there are images in hand. Each way runs in a
    thread of its own that ends with its turn, since threads that have computed slow each other down.

    Args:
        load: loads the model.
        sizes: how much to measure.

    Returns:
        The figures. Speed-ups are medians of the rounds' ratios. ``tokens_identical`` is the share of the images
        read one at a time for which the engine wrote the same tokens, without images that differ after a near tie.
    """
    loaded = _alone(lambda: replace(load(), guard=None))  # so that every image is read
    engine = _alone(lambda: Engine(loaded, max_batch=sizes.concurrency))
    tasks = phantoms(sizes)
    single, static, ours = EngineMeasurement(), EngineMeasurement(), EngineMeasurement()
    references: dict[str, ReferenceGeneration] = {}
    for number in range(sizes.rounds + 1):
        warming_up = number == 0  # a small round that isn't counted
        at = max(number - 1, 0) * sizes.single
        one_by_one = tasks[at : at + (1 if warming_up else sizes.single)]
        written, took = _timed(partial(one_at_a_time, loaded, one_by_one))
        batch = tasks[: 2 if warming_up else sizes.static]
        together, took_together = _timed(partial(generate_reference, loaded, batch))
        many = tasks[: 2 if warming_up else sizes.images]
        read, took_ours = feed(engine, many, sizes.concurrency)
        if warming_up:
            continue
        references |= {task.id: reference for task, reference in zip(one_by_one, written, strict=True)}
        single.add_references(written, took)
        static.add_references(together, took_together)
        ours.add([tokens for tokens, _ in read], [first for _, first in read], took_ours)
    ties, same = _alone(lambda: compare(engine, tasks, references))
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


def phantoms(sizes: EngineBenchSizes) -> list[ImageTask]:
    """Draw held-out phantoms, enough for every candidate."""
    count = max(sizes.images, sizes.static, sizes.single * sizes.rounds)
    return [image_task_of(str(seed), Image.fromarray(render(seed).image)) for seed in held_out_seeds(count)]


def feed(engine: Engine, tasks: Sequence[ImageTask], threads: int) -> tuple[list[tuple[int, float]], float]:
    """Read images with the engine.

    Args:
        engine: that reads them.
        tasks: the images.
        threads: that submit them, one image each at a time.

    Returns:
        For each image the tokens of its report and the seconds until the first; and the seconds of all images.
    """
    thread = EngineThread(lambda: engine)

    def read(task: ImageTask) -> tuple[int, float]:
        began = time.perf_counter()
        report = thread.read(task)
        assert isinstance(report, Report), report
        return report.tokens.generated, time.perf_counter() - began - report.timings.generate

    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        read_all = list(pool.map(read, tasks))
        took = time.perf_counter() - began
    thread.close()
    return read_all, took


def one_at_a_time(loaded: LoadedModel, tasks: Sequence[ImageTask]) -> list[ReferenceGeneration]:
    """Read images with ``generate``, one at a time."""
    return [generate_reference(loaded, [task])[0] for task in tasks]


def compare(
    engine: Engine, tasks: Sequence[ImageTask], references: dict[str, ReferenceGeneration]
) -> tuple[int, int]:
    """Compare the engine's tokens with the references.

    The images arrive in another order, now and then a few, so that they join batches of all sizes.

    Args:
        engine: that reads them.
        tasks: the images; those without a reference are ignored.
        references: by the image's id.

    Returns:
        How many images differ after a near tie, and how many have the same tokens.
    """
    waiting = [engine.new_sequence(task) for task in tasks if task.id in references]
    drawn, ended = random.Random(0), list[ReportSequence]()
    drawn.shuffle(waiting)
    while waiting or engine.busy:
        for _ in range(min(drawn.choice((0, 0, 1, 5)), len(waiting))):
            engine.add(waiting.pop())
        ended += engine.step()
    pairs = [(references[sequence.task.id], tuple(sequence.tokens)) for sequence in ended]
    ties = sum(reference.near_tie(tokens) for reference, tokens in pairs)
    return ties, sum(reference.tokens == tokens for reference, tokens in pairs)


def _alone(work: Callable[[], T]) -> T:
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    def timed() -> tuple[T, float]:
        began = time.perf_counter()
        return work(), time.perf_counter() - began

    return _alone(timed)


def _ratio(ours: EngineMeasurement, other: EngineMeasurement) -> float:
    return round(statistics.median(a / b for a, b in zip(ours.rates, other.rates, strict=True)), 2)
