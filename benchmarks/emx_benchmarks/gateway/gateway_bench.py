"""``emx bench gateway``: the systems take turns, round after round."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from emx_benchmarks.gateway.clients import Broken, Clients
from emx_benchmarks.gateway.environment import Environment, cache
from emx_benchmarks.gateway.load import Taken, Turn
from emx_benchmarks.gateway.ours import Ours
from emx_benchmarks.gateway.peers import peers as all_peers
from emx_benchmarks.gateway.served_process import NotServing
from emx_benchmarks.gateway.system import Place, System
from emx_shared.demo_model import DEMO_IMAGE

_SIDE = 584
"""Pixels: the demo's sample at this size is a PNG of 180 kB."""

_STARTING = 45.0
_WARMING = 0.3


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        seconds: of each system in each round, submitting alone; and again as long, each job to its end.
        most: submissions in one turn, at most.
        clients: at the same time.
    """

    rounds: int = 3
    seconds: float = 1.0
    most: int = 3000
    clients: int = 16


FULL = Sizes(rounds=10, seconds=5.0)


@dataclass
class Measured:
    """A system and its turns; ``absent`` says why there are none."""

    system: System
    submits: list[Taken] = field(default_factory=list)
    ends: list[Taken] = field(default_factory=list)
    absent: str | None = None

    def figures(self) -> dict[str, Any]:
        about = {"version": self.system.version, "durable": self.system.durable, "keeps": self.system.keeps}
        if self.absent:
            return {**about, "absent": self.absent}
        spread = [quantiles(turn.submits) for turn in self.submits]
        ends = [quantiles(turn.ends) for turn in self.ends if turn.ends]
        return {
            **about,
            "submits": sum(len(turn.submits) for turn in self.submits),
            "refused": sum(turn.refused for turn in (*self.submits, *self.ends)),
            "submits_per_second": round(statistics.median(turn.rate for turn in self.submits), 1),
            **{f"submit_p{n}_ms": _median_ms(spread, n) for n in (50, 95, 99)},
            **{f"done_p{n}_ms": _median_ms(ends, n) if ends else None for n in (50, 95)},
            "done_per_second": round(statistics.median(turn.rate for turn in self.ends), 1) if ends else None,
        }


def bench_gateway(sizes: Sizes, chosen: Sequence[str] | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Our gateway and the ``chosen`` peers (None: all) take turns, in each round in another order.

    All run all the time, and those whose turn it isn't are idle. Figures are medians of the rounds'; ratios are
    medians of the rounds' ratios to the peer that is the best of all.
    """
    ours = Ours()
    others = [peer for peer in all_peers() if chosen is None or peer.name in chosen]
    environment = Environment(cache() / "bench-peers", say)
    absent = environment.install(others) if others else {}
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=cache()) as on_disk, _sockets() as sockets:
        place = Place(Path(on_disk), Path(sockets), environment.python)
        image = place.folder / "x.png"
        sample = Image.open(DEMO_IMAGE)
        sample.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS).save(image)
        measured = [Measured(system, absent=absent.get(system.name)) for system in (ours, *others)]
        try:
            _measure(measured, place, image, sizes, say)
        finally:
            for one in measured:
                one.system.leave()
            for one in measured:
                one.system.stop()
        size = image.stat().st_size
    return {
        "image_bytes": size,
        "clients": sizes.clients,
        "cores": os.cpu_count(),
        "rounds": sizes.rounds,
        "seconds_per_turn": sizes.seconds,
        **_ratios(measured),
        "ours": measured[0].figures(),
        "peers": {one.system.name: one.figures() for one in measured[1:]},
        "notes": NOTES,
    }


NOTES = (
    "submit_throughput_vs_best_peer: ours divided by the best peer's, higher is better. submit_p95_vs_best_peer: "
    "our p95 divided by the best peer's, lower is better. Clients, servers, Redis and disk share one machine. "
    "Each has one process that answers HTTP, as it comes. While submissions alone are measured, nothing reads our "
    "jobs; the peers do their work of none at once."
)


def _sockets() -> "tempfile.TemporaryDirectory[str]":
    """Directly below the folder for what is temporary, since a socket's path has 107 bytes at most."""
    return tempfile.TemporaryDirectory(prefix="emx", ignore_cleanup_errors=True)


def _measure(
    measured: list[Measured], place: Place, image: Path, sizes: Sizes, say: Callable[[str], None]
) -> None:
    with Clients() as clients:
        say("Starting " + ", ".join(one.system.name for one in measured if not one.absent))
        _start(measured, place, image, clients)
        for number in range(sizes.rounds + 1):
            say(f"Round {number} of {sizes.rounds}" if number else "Warming up")
            at = number % len(measured)
            for one in measured[at:] + measured[:at]:
                if not one.absent:
                    _take_turns(one, clients, image, sizes, warming=number == 0)


def _start(measured: list[Measured], place: Place, image: Path, clients: Clients) -> None:
    """All at once. Whatever of the peers doesn't start is absent; without ours there is nothing to measure."""
    give_up = time.monotonic() + _STARTING
    for one in measured:
        if not one.absent:
            try:
                one.system.start(place)
            except (NotServing, OSError) as error:
                one.absent = f"did not start: {error}"
    for one in measured:
        while not one.absent:
            try:
                one.system.check()
                if clients.carry_out(_one(one.system, image)).submits:
                    break
                said = "it refuses uploads"
            except NotServing as error:
                one.absent = f"did not start: {error}"
            except Broken as error:
                said = str(error)
            if time.monotonic() > give_up:
                one.absent = f"did not start within {_STARTING:.0f} s: {said}"
            time.sleep(0.2)
    if measured[0].absent:
        raise NotServing(measured[0].absent)


def _one(system: System, image: Path) -> Turn:
    return Turn(door=system.door, image=image, clients=1, seconds=1, most=1)


def _take_turns(one: Measured, clients: Clients, image: Path, sizes: Sizes, *, warming: bool) -> None:
    turn = Turn(
        door=one.system.door,
        image=image,
        clients=sizes.clients,
        seconds=_WARMING if warming else sizes.seconds,
        most=sizes.most,
    )
    try:
        one.system.read_jobs(False)
        submits = clients.carry_out(turn)
        one.system.clear()
        one.system.read_jobs(True)
        ends = Taken()
        if turn.door.poll and not warming:
            ends = clients.carry_out(turn.model_copy(update={"to_the_end": True}))
            one.system.clear()
    except Broken as error:
        one.absent = f"broke off: {error}"
        return
    if not submits.submits:
        one.absent = f"accepted none of {submits.refused} submissions"
    elif not warming:
        one.submits.append(submits)
        one.ends.append(ends)


def quantiles(seconds: Sequence[float]) -> dict[int, float]:
    """The 50th, 95th and 99th percentile, by nearest rank."""
    ordered = sorted(seconds)
    return {n: ordered[min(len(ordered) * n // 100, len(ordered) - 1)] for n in (50, 95, 99)}


def _median_ms(spread: Sequence[dict[int, float]], n: int) -> float:
    return round(statistics.median(one[n] for one in spread) * 1e3, 1)


def _ratios(measured: Sequence[Measured]) -> dict[str, Any]:
    """None where there was no peer."""
    ours, *others = (one for one in measured if not one.absent)
    if not others:
        return dict.fromkeys(("submit_throughput_vs_best_peer", "submit_p95_vs_best_peer", "best_peer"))

    def p95(turn: Taken) -> float:
        return quantiles(turn.submits)[95]

    fastest = max(others, key=lambda one: statistics.median(turn.rate for turn in one.submits))
    calmest = min(others, key=lambda one: statistics.median(map(p95, one.submits)))
    rates = [mine.rate / theirs.rate for mine, theirs in zip(ours.submits, fastest.submits, strict=True)]
    waits = [p95(mine) / p95(theirs) for mine, theirs in zip(ours.submits, calmest.submits, strict=True)]
    return {
        "submit_throughput_vs_best_peer": round(statistics.median(rates), 2),
        "submit_p95_vs_best_peer": round(statistics.median(waits), 2),
        "best_peer": fastest.system.name,
    }
