"""Measures gateways for ``emx bench gateway``: the systems take turns, round after round."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from emx_benchmarks.gateway.clients import ConnectionBroke, LoadClients
from emx_benchmarks.gateway.environment import PeerEnvironment, cache
from emx_benchmarks.gateway.load import LoadTurn, TurnTimings
from emx_benchmarks.gateway.ours import OurGateway
from emx_benchmarks.gateway.peers import peers as all_peers
from emx_benchmarks.gateway.served_process import NotServing
from emx_benchmarks.gateway.system import BenchPlace, MeasuredSystem
from emx_shared.demo_files import DEMO_IMAGE

NOTES = (
    "submit_throughput_vs_best_peer: ours divided by the best peer's, higher is better. submit_p95_vs_best_peer: "
    "our p95 divided by the best peer's, lower is better. Clients, servers, Redis and disk share one machine. "
    "Each system has one process that answers HTTP, as it is by default. While submissions alone are measured, "
    "nothing reads our jobs; the peers do their no-op at once."
)

_SIDE = 584
"""Pixels: the demo's sample at this size is a PNG of 180 kB."""

_STARTUP_SECONDS = 45.0
_WARMUP_SECONDS = 0.3


@dataclass(frozen=True)
class GatewayBenchSizes:
    """How much the gateway benchmark measures.

    Attributes:
        rounds: in which the systems take turns.
        seconds: of each system's turn of submissions alone, and of its turn with each job to its end.
        most: largest number of submissions in one turn.
        clients: that submit at the same time.
    """

    rounds: int = 3
    seconds: float = 1.0
    most: int = 3000
    clients: int = 16


FULL = GatewayBenchSizes(rounds=10, seconds=5.0)


@dataclass
class GatewayMeasurement:
    """A system and the timings of its turns.

    Attributes:
        system: that is measured.
        submits: timings of the turns of submissions alone, one for each round.
        ends: timings of the turns with each job to its end, one for each round.
        absent: why the system has no timings; None if it has.
    """

    system: MeasuredSystem
    submits: list[TurnTimings] = field(default_factory=list)
    ends: list[TurnTimings] = field(default_factory=list)
    absent: str | None = None

    def figures(self) -> dict[str, Any]:
        """Return the figures as the command prints them: medians of the rounds."""
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


def bench_gateway(
    sizes: GatewayBenchSizes, chosen: Sequence[str] | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure our gateway and its peers, which take turns, in each round in another order.

    All systems run all the time, and are idle in the turns of others.

    Args:
        sizes: how much to measure.
        chosen: names of the peers; None for all.
        say: shows a line of progress to the user.

    Returns:
        The figures: medians of the rounds, and ratios, which are medians of the rounds' ratios to the best peer.

    Raises:
        NotServing: if our gateway doesn't start.
    """
    others = [peer for peer in all_peers() if chosen is None or peer.name in chosen]
    environment = PeerEnvironment(cache() / "bench-peers", say)
    absent = environment.install(others) if others else {}
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=cache()) as on_disk, _socket_folder() as sockets:
        place = BenchPlace(Path(on_disk), Path(sockets), environment.python)
        image = _write_image(place.folder)
        size = image.stat().st_size
        measurements = [
            GatewayMeasurement(system, absent=absent.get(system.name)) for system in (OurGateway(), *others)
        ]
        try:
            _measure(measurements, place, image, sizes, say)
        finally:
            for measurement in measurements:
                measurement.system.terminate()
            for measurement in measurements:
                measurement.system.stop()
    return {
        "image_bytes": size,
        "clients": sizes.clients,
        "cores": os.cpu_count(),
        "rounds": sizes.rounds,
        "seconds_per_turn": sizes.seconds,
        **_ratios(measurements),
        "ours": measurements[0].figures(),
        "peers": {measurement.system.name: measurement.figures() for measurement in measurements[1:]},
        "notes": NOTES,
    }


def _socket_folder() -> "tempfile.TemporaryDirectory[str]":
    """Make a folder directly in the system's temporary one, since a socket's path has 107 bytes at most."""
    return tempfile.TemporaryDirectory(prefix="emx", ignore_cleanup_errors=True)


def _write_image(folder: Path) -> Path:
    image = folder / "x.png"
    sample = Image.open(DEMO_IMAGE)
    sample.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS).save(image)
    return image


def _measure(
    measurements: list[GatewayMeasurement],
    place: BenchPlace,
    image: Path,
    sizes: GatewayBenchSizes,
    say: Callable[[str], None],
) -> None:
    with LoadClients() as clients:
        say("Starting " + ", ".join(each.system.name for each in measurements if not each.absent))
        _start(measurements, place, image, clients)
        for number in range(sizes.rounds + 1):
            say(f"Round {number} of {sizes.rounds}" if number else "Warming up")
            at = number % len(measurements)
            for measurement in measurements[at:] + measurements[:at]:
                if not measurement.absent:
                    _take_turns(measurement, clients, image, sizes, warming_up=number == 0)


def _start(measurements: list[GatewayMeasurement], place: BenchPlace, image: Path, clients: LoadClients) -> None:
    """Start all systems at once. A peer that doesn't start is absent. Raises NotServing if ours doesn't start."""
    give_up = time.monotonic() + _STARTUP_SECONDS
    for measurement in measurements:
        if not measurement.absent:
            try:
                measurement.system.start(place)
            except (NotServing, OSError) as error:
                measurement.absent = f"did not start: {error}"
    for measurement in measurements:
        _wait_until_it_accepts(measurement, image, clients, give_up)
    if measurements[0].absent:
        raise NotServing(measurements[0].absent)


def _wait_until_it_accepts(
    measurement: GatewayMeasurement, image: Path, clients: LoadClients, give_up: float
) -> None:
    one_upload = LoadTurn(endpoint=measurement.system.endpoint, image=image, clients=1, seconds=1, most=1)
    while not measurement.absent:
        try:
            measurement.system.check()
            if clients.carry_out(one_upload).submits:
                return
            reason = "it refuses uploads"
        except NotServing as error:
            measurement.absent = f"did not start: {error}"
            return
        except ConnectionBroke as error:
            reason = str(error)
        if time.monotonic() > give_up:
            measurement.absent = f"did not start within {_STARTUP_SECONDS:.0f} s: {reason}"
        time.sleep(0.2)


def _take_turns(
    measurement: GatewayMeasurement,
    clients: LoadClients,
    image: Path,
    sizes: GatewayBenchSizes,
    *,
    warming_up: bool,
) -> None:
    system = measurement.system
    turn = LoadTurn(
        endpoint=system.endpoint,
        image=image,
        clients=sizes.clients,
        seconds=_WARMUP_SECONDS if warming_up else sizes.seconds,
        most=sizes.most,
    )
    try:
        system.read_jobs(False)
        submits = clients.carry_out(turn)
        system.clear()
        system.read_jobs(True)
        ends = TurnTimings()
        if turn.endpoint.poll and not warming_up:
            ends = clients.carry_out(turn.model_copy(update={"to_the_end": True}))
            system.clear()
    except ConnectionBroke as error:
        measurement.absent = f"broke off: {error}"
        return
    if not submits.submits:
        measurement.absent = f"accepted none of {submits.refused} submissions"
    elif not warming_up:
        measurement.submits.append(submits)
        measurement.ends.append(ends)


def quantiles(seconds: Sequence[float]) -> dict[int, float]:
    """Return the 50th, 95th and 99th percentile, by nearest rank."""
    ordered = sorted(seconds)
    return {n: ordered[min(len(ordered) * n // 100, len(ordered) - 1)] for n in (50, 95, 99)}


def _median_ms(spread: Sequence[dict[int, float]], n: int) -> float:
    return round(statistics.median(percentiles[n] for percentiles in spread) * 1e3, 1)


def _ratios(measurements: Sequence[GatewayMeasurement]) -> dict[str, Any]:
    """Return our figures relative to the best peer's; None for each if there is no peer."""
    ours, *others = (measurement for measurement in measurements if not measurement.absent)
    if not others:
        return dict.fromkeys(("submit_throughput_vs_best_peer", "submit_p95_vs_best_peer", "best_peer"))

    def p95(turn: TurnTimings) -> float:
        return quantiles(turn.submits)[95]

    fastest = max(others, key=lambda peer: statistics.median(turn.rate for turn in peer.submits))
    calmest = min(others, key=lambda peer: statistics.median(map(p95, peer.submits)))
    rates = [mine.rate / theirs.rate for mine, theirs in zip(ours.submits, fastest.submits, strict=True)]
    waits = [p95(mine) / p95(theirs) for mine, theirs in zip(ours.submits, calmest.submits, strict=True)]
    return {
        "submit_throughput_vs_best_peer": round(statistics.median(rates), 2),
        "submit_p95_vs_best_peer": round(statistics.median(waits), 2),
        "best_peer": fastest.system.name,
    }
