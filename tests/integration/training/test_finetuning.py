"""Both phases, for a few steps, on a tiny Gemma 3 without locations, as MedGemma, and on a tiny PaliGemma."""

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from peft import PeftModel
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, PreTrainedTokenizerFast

from emx_benchmarks.trained_gemma import TOKENIZER_FILE
from emx_shared.contracts.report import ImageFacts
from emx_shared.grammar import LOC_BINS, parse
from emx_training.data.tables import BadTable
from emx_training.evaluate.collection import judge_model
from emx_training.finetune import feature_cache, loop, lora
from emx_training.finetune.collator import Collator
from emx_training.finetune.examples import Example, read_boxes, read_reports
from emx_training.finetune.location_rows import initial_rows
from emx_training.finetune.loop import STATE
from emx_training.finetune.lora import load_base, location_adapter, read_phase1
from emx_training.finetune.own_words import in_own_words
from emx_training.finetune_phase1 import main as phase1
from emx_training.finetune_phase2 import OWN_WORDS
from emx_training.finetune_phase2 import main as phase2
from emx_training.losses import IGNORED
from emx_training.pretrain.tokenizer import PROMPT, build_tokenizer
from emx_worker.engine.engine import Engine
from emx_worker.image_task import Generation, ImageTask
from emx_worker.model.architectures import architecture_of
from emx_worker.model.checkpoint import (
    MODEL_SPEC_FILE,
    BaseCheckpoint,
    ModelError,
    read_config,
    read_model_spec,
    read_processor,
)
from emx_worker.model.loading import load_model
from emx_worker.model.weights import read_weights
from support.paths import ROOT

pytestmark = pytest.mark.filterwarnings("ignore")
BOXES = ("image", "term", "xmin", "ymin", "xmax", "ymax")
REPORTS = ("image", "findings", "impression")
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images, bright on the left or on the right, with what that means."""
    folder = tmp_path_factory.mktemp("data")
    reports: list[tuple[object, ...]] = []
    boxes: list[tuple[object, ...]] = []
    for number in range(12):
        side = "left" if number % 2 else "right"
        image = Image.new("L", (40, 40), 30)
        image.paste(220, (24, 20, 36, 36) if side == "left" else (4, 20, 16, 36))
        image.save(folder / f"{number}.png")
        reports.append((f"{number}.png", f"There is fluid on the {side}.", f"Effusion on the {side}."))
        at = (0.6, 0.5, 0.9, 0.9) if side == "left" else (0.1, 0.5, 0.4, 0.9)
        boxes.append((f"{number}.png", f"pleural effusion {side}", *at))
    _table(folder / "train.csv", REPORTS, reports[:10])
    _table(folder / "validation.csv", REPORTS, reports[10:])
    _table(folder / "boxes.csv", BOXES, [*boxes, boxes[0]][:12])
    return folder


def position(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(output / STATE, weights_only=True)["at"]
    return found


def phase1_options(base: Path, data: Path, output: Path, *more: str) -> list[str]:
    named = {"--csv": data / "train.csv", "--images": data, "--output": output, "--base": base}
    fixed = ["--lora_r", "4", "--batch", "4", "--lr", "0.01", "--quantisation", "none"]
    return [*(str(part) for pair in named.items() for part in pair), *fixed, *more]


def phase2_options(base: Path, data: Path, output: Path, before: Path, *more: str) -> list[str]:
    named = {"--csv": data / "boxes.csv", "--output": output, "--base": base, "--phase1_ckpt": before}
    fixed = ["--batch", "4", "--lr", "0.01", "--quantisation", "none"]
    return [*(str(part) for pair in named.items() for part in pair), *fixed, *more]


@pytest.fixture(scope="module", params=["base", "paligemma"])
def either(request: pytest.FixtureRequest) -> Path:
    """A checkpoint of each architecture in turn."""
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def trained(either: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of both phases' adapters."""
    folder = tmp_path_factory.mktemp("runs")
    first, second = folder / "phase1", folder / "phase2"
    phase1(phase1_options(either, data, first, "--epochs", "4"))
    phase2(phase2_options(either, data, second, first, "--epochs", "4"))
    return first, second


def test_both_phases_teach_a_model(trained: tuple[Path, Path]) -> None:
    first, second = trained
    losses = position(first)["losses"]
    assert losses[-1] < losses[0]
    assert all("lora" in name for name in load_file(first / WEIGHTS))  # text layers alone
    losses = position(second)["losses"]
    assert min(losses[1:]) < losses[0]
    weights = load_file(second / WEIGHTS)
    assert any("multi_modal_projector" in name for name in weights)
    assert [len(rows) for name, rows in weights.items() if "trainable_tokens" in name] == [LOC_BINS]
    assert not any("vision_tower" in name for name in weights)


@pytest.mark.parametrize("quantisation", ["none", "int4", "nf4"])
def test_the_worker_reads_with_what_was_trained(
    either: Path, trained: tuple[Path, Path], data: Path, quantisation: str
) -> None:
    loaded = load_model(either, adapter=trained[1], quantisation=quantisation)
    facts = ImageFacts(width=40, height=40, media_type="image/png", sha256="0" * 64)
    task = ImageTask(id="1", image=Image.open(data / "0.png"), facts=facts)
    (generation,) = Engine(loaded).generate([task])
    assert isinstance(generation, Generation)
    parse(generation.text)


def test_an_adapter_of_phase_1_is_judged_by_its_text(either: Path, trained: tuple[Path, Path], data: Path) -> None:
    judgement = judge_model(data / "train.csv", data, str(either), adapter=str(trained[0]), quantisation="none")
    assert str(judgement.model.adapter).startswith("phase1@")
    assert judgement.model.dialect == ("loc" if "paligemma" in either.name else "box_2d")
    assert judgement.scores.images == 10
    assert judgement.scores.figures["parse_rate"] == 1
    assert "rouge_l" in judgement.scores.figures
    assert "mean_iou" in judgement.scores.absent


def test_plain_peft_computes_what_the_worker_computes(
    either: Path, trained: tuple[Path, Path], data: Path
) -> None:
    loaded = load_model(either, adapter=trained[1], quantisation="none")
    model = AutoModelForImageTextToText.from_pretrained(either, dtype=torch.float32)
    if len(loaded.processor.tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(loaded.processor.tokenizer))
    plain = PeftModel.from_pretrained(model, trained[1]).eval()
    batch = Collator(loaded.architecture, loaded.processor)(read_boxes(data / "boxes.csv", data)[:2])
    inputs = {name: value for name, value in vars(batch).items() if name != "labels"}
    with torch.inference_mode():
        torch.testing.assert_close(loaded.model(**inputs).logits, plain(**inputs).logits, atol=1e-4, rtol=1e-4)


def test_an_adapter_names_its_base_and_no_path_of_this_machine(
    either: Path, trained: tuple[Path, Path], data: Path
) -> None:
    weights = hashlib.sha256((either / "model.safetensors").read_bytes()).hexdigest()
    for folder in trained:
        base = read_model_spec(folder).base
        assert base == BaseCheckpoint(name=either.name, sha256=weights)
        assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == either.name
        for file in folder.iterdir():
            content = file.read_bytes()
            for path in (either, folder, data):
                assert str(path.parent).encode() not in content, (file, path)


def test_an_adapter_of_other_weights_of_the_same_shape_is_refused(
    either: Path, trained: tuple[Path, Path], data: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(either, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    said = rf"phase1 was trained on {either.name} \(weights [0-9a-f]{{12}}\), and this is {either.name} \(weights"
    with pytest.raises(SystemExit, match=said):
        phase2(phase2_options(other, data, tmp_path / "out", trained[0]))
    with pytest.raises(SystemExit, match=said):  # a run can't resume with another base either
        phase1(phase1_options(other, data, trained[0]))
    with pytest.raises(ModelError, match=said.replace("phase1", "phase2")):
        load_model(other, adapter=trained[1], quantisation="none")


def test_an_answer_sees_nothing_that_comes_after_it(either: Path, data: Path) -> None:
    config = read_config(either)
    processor, model = read_processor(either, config), read_weights(either, config, dtype=torch.float32).eval()
    batch = Collator(architecture_of(config), processor)(read_reports(data / "train.csv", data)[:2])
    answer = batch.input_ids.shape[1] - batch.labels.shape[1]

    def logits(changed: int | None = None) -> torch.Tensor:
        inputs = {name: value.clone() for name, value in vars(batch).items() if name != "labels"}
        if changed is not None:
            inputs["input_ids"][:, changed] += 1
        with torch.inference_mode():
            found: torch.Tensor = model(**inputs).logits
        return found

    whole = logits()
    for place in (answer, answer + 5, answer + 20):
        changed = logits(place)
        assert torch.equal(changed[:, :place], whole[:, :place])
        assert not torch.equal(changed[:, place + 1], whole[:, place + 1])
    sees_the_whole_prompt = not torch.equal(logits(answer - 1)[:, answer - 3], whole[:, answer - 3])
    assert sees_the_whole_prompt == (config.model_type == "paligemma")


def test_paligemma_is_taught_in_the_form_its_own_processor_writes(paligemma: Path, data: Path) -> None:
    config = read_config(paligemma)
    processor = read_processor(paligemma, config)
    example = read_boxes(data / "boxes.csv", data)[0]
    batch = Collator(architecture_of(config), processor)([example])
    text = "".join(piece for piece, _ in example.answer)
    image = Image.open(example.image).convert("RGB")
    theirs = processor(images=image, text=f"<image>{PROMPT}", suffix=text, return_tensors="pt")
    for name in ("input_ids", "token_type_ids", "attention_mask", "pixel_values"):
        assert torch.equal(getattr(batch, name), theirs[name]), name
    trained = batch.labels != IGNORED
    assert trained.any()
    assert torch.equal(batch.labels[trained], theirs["labels"][:, -batch.labels.shape[1] :][trained])


def test_a_killed_run_ends_as_one_that_was_left_alone(base: Path, data: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = ("--epochs", "4", "--save_every", "1")
    phase1(phase1_options(base, data, whole, *options))
    command = [sys.executable, "-m", "emx_training.finetune_phase1", *phase1_options(base, data, killed, *options)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    give_up = time.monotonic() + 120
    while not ((killed / STATE).exists() and position(killed)["epoch"] >= 1):
        assert process.poll() is None and time.monotonic() < give_up
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert position(killed)["epoch"] < 4
    phase1(phase1_options(base, data, killed, *options))
    one, other = load_file(whole / WEIGHTS), load_file(killed / WEIGHTS)
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name])


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / WEIGHTS)
    return found


def assert_same_weights(one: Path, other: Path) -> None:
    ours, theirs = weights_of(one), weights_of(other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=2e-4, rtol=2e-3)


def test_forward_passes_that_are_accumulated_train_as_one_large_batch_does(
    base: Path, data: Path, tmp_path: Path
) -> None:
    """Though their answers differ in length: every token weighs the same."""
    phase1(phase1_options(base, data, tmp_path / "whole", "--epochs", "1"))
    phase1(phase1_options(base, data, tmp_path / "parts", "--epochs", "1", "--batch", "1", "--accumulate", "4"))
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    losses = [position(tmp_path / run)["losses"] for run in ("whole", "parts")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_images_that_other_processes_decode_train_the_same(base: Path, data: Path, tmp_path: Path) -> None:
    for workers in ("0", "2"):
        phase1(phase1_options(base, data, tmp_path / workers, "--epochs", "1", "--workers", workers))
    assert_same_weights(tmp_path / "0", tmp_path / "2")


def test_a_damaged_image_that_another_process_decodes_is_named_in_one_sentence(
    base: Path, broken: Path, tmp_path: Path
) -> None:
    (broken / "3.png").write_bytes((broken / "3.png").read_bytes()[:-40])
    options = phase1_options(base, broken, tmp_path / "out", "--epochs", "1", "--workers", "1")
    refused(phase1, options, "3.png can't be used", "cut")


def test_two_processes_train_one_adapter_as_one_process_does(base: Path, data: Path, tmp_path: Path) -> None:
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    phase1(phase1_options(base, data, alone, "--epochs", "2"))
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    options = phase1_options(base, data, shared, "--epochs", "2", "--batch", "2")
    command = [*launched, "-m", "emx_training.finetune_phase1", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert_same_weights(alone, shared)
    assert position(alone)["losses"] == pytest.approx(position(shared)["losses"], rel=1e-3)


@pytest.mark.parametrize("change", [("--batch", "2"), ("--epochs", "3"), ("--lr", "0.001"), ("--seed", "5")])
def test_a_run_is_resumed_with_the_options_that_it_began_with(
    trained: tuple[Path, Path], either: Path, data: Path, change: tuple[str, str]
) -> None:
    options = phase1_options(either, data, trained[0], "--epochs", "4", *change)
    refused(phase1, options, f"a run with {change[0]}", "give the same, or choose another --output")


def test_phase_2_validates_on_other_patients_where_their_table_is_at_hand(
    either: Path, data: Path, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(data, tmp_path / "data")
    _table(folder / "boxes-validation.csv", BOXES, [("elsewhere.png", "mass left", "0.1", "0.1", "0.2", "0.2")])
    options = phase2_options(either, folder, tmp_path / "out", trained[0])
    refused(phase2, options, "boxes-validation.csv, row 2, column image", "elsewhere.png")


def test_phase_2_replays_as_many_reports_as_there_are_boxes(
    either: Path, data: Path, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    replay = ("--replay", str(data / "train.csv"), "--epochs", "1")
    phase2(phase2_options(either, data, tmp_path / "out", trained[0], *replay))
    examples = [torch.load(folder / STATE)["settings"]["examples"] for folder in (trained[1], tmp_path / "out")]
    assert examples[1] == examples[0] + 10, "the table has ten reports, for twelve images with boxes"
    assert len(json.loads((tmp_path / "out" / OWN_WORDS).read_text())) == 12
    missing = phase2_options(either, data, tmp_path / "out", trained[0], "--replay", str(tmp_path / "none.csv"))
    refused(phase2, missing, "none.csv can't be read")


def test_locations_are_learned_after_the_words_that_phase_1_writes(
    either: Path, data: Path, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    examples = read_boxes(data / "boxes.csv", data)
    own = in_own_words(examples, str(either), trained[0], "none", tmp_path / "kept.json")
    texts = json.loads((tmp_path / "kept.json").read_text())
    assert all(texts[str(one.image)].startswith(one.answer[0][0]) for one in own)
    assert [one.answer[1:3] for one in own] == [one.answer[1:3] for one in examples], "LOCATIONS are the table's"
    assert not any(trained for one in own for _, trained in (one.answer[0], one.answer[3]))
    parse("".join(text for text, _ in own[0].answer))
    (tmp_path / "kept.json").write_text(json.dumps(dict.fromkeys(texts, "")))
    assert in_own_words(examples, "no model", trained[0], "none", tmp_path / "kept.json") == examples


def test_cached_features_give_the_same_adapter_and_the_tower_runs_once(
    either: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, encoded = tmp_path / "features", list[int]()
    compute = feature_cache._CachedFeatures

    class Counted(compute):  # type: ignore[misc, valid-type]
        def __init__(self, inner: Any, *rest: Any) -> None:
            def counted(pixels: torch.Tensor, **options: Any) -> Any:
                encoded.append(len(pixels))
                return inner(pixels, **options)

            super().__init__(counted, *rest)

    monkeypatch.setattr(feature_cache, "_CachedFeatures", Counted)
    cached = ("--epochs", "2", "--cache_features", str(cache))
    phase1(phase1_options(either, data, tmp_path / "without", "--epochs", "2"))
    phase1(phase1_options(either, data, tmp_path / "with", *cached))
    assert len(list(cache.iterdir())) == 2, "as many as there are different images"
    assert sum(encoded) <= 4, "within the first batch"
    next(cache.iterdir()).write_bytes(b"damaged")
    encoded.clear()
    phase1(phase1_options(either, data, tmp_path / "again", *cached))
    assert 1 <= sum(encoded) <= 4
    without = weights_of(tmp_path / "without")
    for folder in ("with", "again"):
        for name, weight in weights_of(tmp_path / folder).items():
            torch.testing.assert_close(weight, without[name], rtol=1e-3, atol=1e-4)


def test_the_adapter_of_phase_1_is_not_overwritten(trained: tuple[Path, Path], either: Path, data: Path) -> None:
    options = phase2_options(either, data, trained[0], trained[0])
    refused(phase2, options, "--output is the folder of phase 1's adapter")


@pytest.fixture
def adapted(either: Path, trained: tuple[Path, Path], data: Path) -> tuple[PeftModel, int, Collator]:
    """A model that is ready for phase 2, and what makes its batches."""
    prepared = load_base(str(either), "none")
    model, first = location_adapter(prepared, read_phase1(trained[0]))
    return model.train(), first, Collator(prepared.architecture, prepared.processor)


def test_rows_that_are_trained_alone_compute_what_peft_computes(
    adapted: tuple[PeftModel, int, Collator], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _, collate = adapted
    batch = collate(read_boxes(data / "boxes.csv", data)[:2])
    inputs = {name: value for name, value in vars(batch).items() if name != "labels"}
    (rows,) = (value for name, value in model.named_parameters() if "trainable_tokens_delta" in name)

    def computed() -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        logits = model(**inputs).logits
        logits.square().mean().backward()
        assert rows.grad is not None
        return logits.detach(), rows.grad.clone()

    ours = computed()
    for layer in model.modules():
        if isinstance(layer, TrainableTokensLayer):
            monkeypatch.delattr(layer, "forward_adapters")
    for one, other in zip(ours, computed(), strict=True):
        torch.testing.assert_close(one, other)
    assert ours[1].abs().sum() > 0


def test_the_frozen_tower_is_computed_once_and_leaves_nothing_for_the_backward_pass(
    adapted: tuple[PeftModel, int, Collator], data: Path
) -> None:
    model, _, collate = adapted
    batch = collate(read_boxes(data / "boxes.csv", data)[:2])
    tower, runs = model.get_base_model().model.vision_tower, list[bool]()
    layer = next(module for name, module in tower.named_modules() if name.endswith("layers.0"))
    layer.register_forward_hook(lambda _module, _inputs, output: runs.append(output[0].requires_grad))
    inputs = {name: value for name, value in vars(batch).items() if name != "labels"}
    model(**inputs).logits.mean().backward()
    assert runs == [False]
    projector = next(value for name, value in model.named_parameters() if "modules_to_save" in name)
    assert projector.grad is not None and projector.grad.abs().sum() > 0


def test_what_is_trained_is_fp32_on_a_base_of_bf16(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU. Steps of a small rate are lost in bf16."""
    AcceleratorState._reset_state(reset_partial_state=True)
    for module in (lora, loop):
        monkeypatch.setattr(module, "compute_dtype", lambda: torch.bfloat16)
    before, output = tmp_path / "phase1", tmp_path / "phase2"
    phase1(phase1_options(base, data, before, "--epochs", "1"))
    phase2(phase2_options(base, data, output, before, "--epochs", "1", "--lr", "0.00003"))
    AcceleratorState._reset_state(reset_partial_state=True)
    config = read_config(base)
    untrained = read_weights(base, config, dtype=torch.bfloat16).state_dict()
    saved = {name: weight for name, weight in weights_of(output).items() if "multi_modal_projector" in name}
    assert saved
    for name, weight in saved.items():
        began = untrained[name.removeprefix("base_model.model.")]
        moved = (weight.float() != began.float()).float().mean()
        assert weight.dtype == torch.float32 and moved > 0.9, (name, moved)


def test_location_rows_begin_in_their_order(base: Path) -> None:
    weight = read_weights(base, read_config(base), dtype=torch.float32).get_input_embeddings().weight.detach()
    rows = initial_rows(weight)
    apart = torch.cdist(rows, rows)
    near = torch.stack([apart.diagonal(step).mean() for step in (1, 4, 16, 64, 256)])
    assert (near.diff() > 0).all()
    spread = (rows - weight.mean(0)).norm(dim=1)
    assert spread.median() == pytest.approx((weight - weight.mean(0)).norm(dim=1).median().item(), rel=0.1)
    assert torch.equal(rows, initial_rows(weight))


def test_the_loss_falls_on_the_answer_and_not_on_what_a_table_cannot_know(either: Path, data: Path) -> None:
    config = read_config(either)
    processor, architecture = read_processor(either, config), architecture_of(config)
    batch = Collator(architecture, processor)(read_reports(data / "train.csv", data)[:2])
    tokenizer = processor.tokenizer
    answer = batch.input_ids[0, -batch.labels.shape[1] :]
    assert tokenizer.decode(answer).startswith(
        "FINDINGS: There is fluid on the right.\nLOCATIONS: none\nIMPRESSION:"
    )
    trained = tokenizer.decode(answer[batch.labels[0] != IGNORED])
    assert "LOCATIONS" not in trained
    assert trained.endswith(architecture.end(processor))


def trained_text(tokenizer: Any, answer: Example) -> str:
    """Return what the tokens of an answer spell that the loss falls on, but for the one that ends it."""
    collate = object.__new__(Collator)
    collate._tokenizer, collate._end = tokenizer, ""
    ids, labels = collate._answer(answer)
    return str(tokenizer.decode([token for token, label in zip(ids, labels, strict=True) if label != IGNORED]))


@pytest.mark.parametrize("boxes", ["mass left,0.1,0.1,0.2,0.2", ",,,,"], ids=["a finding", "none"])
def test_phase_2_learns_the_whole_of_locations_with_any_tokenizer(data: Path, tmp_path: Path, boxes: str) -> None:
    """Its first word, too, which says whether there is any finding, and begins with the space before it."""
    table = tmp_path / "boxes.csv"
    table.write_text(f"{','.join(BOXES)}\n0.png,{boxes}\n")
    (example,) = read_boxes(table, data)
    text = "".join(part for part, _ in example.answer)
    expected = text[text.index("LOCATIONS:") + len("LOCATIONS:") : text.index("IMPRESSION")]
    tokenizers = [build_tokenizer()]
    if TOKENIZER_FILE.exists():  # of Gemma 3, by test.sh
        tokenizers.append(PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZER_FILE)))
        tokenizers[-1].add_tokens([f"<loc{number:04d}>" for number in range(LOC_BINS)])
    for tokenizer in tokenizers:
        assert trained_text(tokenizer, example) == expected


def refused(command: Callable[[list[str]], None], options: list[str], *words: str) -> None:
    """With one sentence, which Python prints, and status 1."""
    with pytest.raises(SystemExit) as caught:
        command(options)
    for word in words:
        assert word in str(caught.value.code)
    assert "\n" not in str(caught.value.code)


@pytest.fixture
def broken(data: Path, tmp_path: Path) -> Path:
    """The folder of images, with some that aren't."""
    folder = shutil.copytree(data, tmp_path / "data")
    (folder / "text.png").write_text("no image")
    (folder / "empty.png").touch()
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:20])
    return folder


@pytest.mark.parametrize(
    ("columns", "row", "words"),
    [
        (("image", "term"), ("0.png", "mass left"), ("no column xmin, ymin, xmax, ymax",)),
        (BOXES, None, ("has no rows",)),
        (BOXES, ("0.png", "mass left", "0", "0", "1"), ("row 2", "the number of cells isn't")),
        (BOXES, ("0.png", "mass left", "0", "0", "1", "1", "1"), ("row 2", "the number of cells isn't")),
        (BOXES, ("none.png", "", "", "", "", ""), ("row 2, column image", "there is no file", "none.png")),
        (BOXES, ("text.png", "", "", "", "", ""), ("row 2, column image", "text.png isn't a PNG, JPEG")),
        (BOXES, ("empty.png", "", "", "", "", ""), ("row 2, column image", "empty.png isn't a PNG, JPEG")),
        (BOXES, ("cut.png", "", "", "", "", ""), ("row 2, column image", "cut.png")),
        (BOXES, ("0.png", "gout", "0", "0", "1", "1"), ("row 2, column term",)),
        (BOXES, ("0.png", "mass left", "0.5", "0", "0.2", "1"), ("row 2, columns xmin and xmax", "inverted")),
        (BOXES, ("0.png", "mass left", "0", "-0.1", "1", "1"), ("row 2, columns ymin and ymax", "-0.1")),
        (BOXES, ("0.png", "mass left", "0", "0", "640", "1"), ("row 2, columns xmin and xmax", "outside", "640")),
        (BOXES, ("0.png", "mass left", "0", "nan", "1", "1"), ("row 2, columns ymin and ymax", "nan")),
        (BOXES, ("0.png", "mass left", "a", "0", "1", "1"), ("row 2", "must be numbers")),
        (REPORTS, ("0.png", "All is {well}.", "Normal."), ("row 2, column findings", "'{'")),
        (REPORTS, ("0.png", "All is well.", ""), ("row 2, column impression", "empty")),
    ],
)
def test_a_bad_table_is_refused_before_the_model_is_loaded(
    broken: Path,
    trained: tuple[Path, Path],
    tmp_path: Path,
    columns: tuple[str, ...],
    row: tuple[str, ...] | None,
    words: tuple[str, ...],
) -> None:
    table = broken / "bad.csv"
    _table(table, columns, [row] if row else [])
    nowhere = tmp_path / "no-model"
    if columns == REPORTS:
        refused(phase1, [*phase1_options(nowhere, broken, tmp_path / "out"), "--csv", str(table)], *words)
    else:
        options = phase2_options(nowhere, broken, tmp_path / "out", trained[0], "--csv", str(table))
        refused(phase2, options, str(table), *words)


def test_every_row_is_looked_at_before_training(base: Path, broken: Path, tmp_path: Path) -> None:
    (broken / "9.png").unlink()
    refused(phase1, phase1_options(base, broken, tmp_path / "out"), "train.csv, row 11, column image", "9.png")


def test_a_table_written_by_a_spreadsheet_is_read(data: Path, tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_bytes(b"\xef\xbb\xbf" + (data / "boxes.csv").read_bytes())
    assert read_boxes(tmp_path / "boxes.csv", data) == read_boxes(data / "boxes.csv", data)


def test_more_boxes_than_a_report_holds_are_refused(data: Path, tmp_path: Path) -> None:
    _table(tmp_path / "boxes.csv", BOXES, [("0.png", "mass left", "0", "0", "1", "1")] * 17)
    with pytest.raises(BadTable, match=r"0\.png has more boxes \(17\)"):
        read_boxes(tmp_path / "boxes.csv", data)


def test_a_finding_without_a_box_is_neither_reported_nor_denied(data: Path, tmp_path: Path) -> None:
    box = ("0.png", "scoliosis", "0", "0", "1", "1")
    _table(tmp_path / "boxes.csv", BOXES, [box, ("0.png", "nodule", "", "", "", "")])
    (example,) = read_boxes(tmp_path / "boxes.csv", data)
    assert "heart size is normal" in example.answer[0][0]
    assert "nodule" not in example.answer[0][0] and "clear" not in example.answer[0][0]
    trained = "".join(text for text, is_trained in example.answer if is_trained)
    assert trained.startswith(" scoliosis <loc") and not trained.endswith("\n")  # nor that nothing follows
    for row, words in (
        (("0.png", "nodule", "", "", "", ""), "has no box and isn't normal"),
        (("0.png", "nodule left", "", "", "", ""), "row 2, column term: 'nodule left' has no box"),
    ):
        _table(tmp_path / "boxes.csv", BOXES, [row])
        with pytest.raises(BadTable, match=words):
            read_boxes(tmp_path / "boxes.csv", data)


def test_an_image_that_ends_too_early_is_named_when_its_turn_comes(
    base: Path, broken: Path, tmp_path: Path
) -> None:
    whole = (broken / "3.png").read_bytes()
    (broken / "3.png").write_bytes(whole[: len(whole) - 40])
    refused(phase1, phase1_options(base, broken, tmp_path / "out", "--epochs", "1"), "3.png can't be used", "cut")


def test_images_are_seen_as_the_worker_sees_them(base: Path, tmp_path: Path) -> None:
    """More than 8 bits are stretched; Pillow alone would cut them off."""
    deep = np.linspace(1000, 3000, 1600).reshape(40, 40).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    _table(tmp_path / "boxes.csv", BOXES, [("deep.png", "", "", "", "", "")])
    config = read_config(base)
    batch = Collator(architecture_of(config), read_processor(base, config))(
        read_boxes(tmp_path / "boxes.csv", tmp_path)
    )
    assert batch.pixel_values.min() < -0.9
    assert batch.pixel_values.max() > 0.9


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("epochs", "0"),
        ("batch", "0"),
        ("lora_r", "0"),
        ("patience", "0"),
        ("save_every", "-1"),
        ("lr", "nan"),
        ("accumulate", "0"),
    ],
)
def test_numbers_that_train_nothing_are_refused(data: Path, tmp_path: Path, option: str, value: str) -> None:
    options = phase1_options(tmp_path / "no-model", data, tmp_path / "out", f"--{option}", value)
    refused(phase1, options, f"--{option} must be above 0, and is {value}")


def test_files_that_are_not_there_are_named(base: Path, broken: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused(phase1, phase1_options(tmp_path / "no-model", broken, out), "no directory", "no-model")
    refused(phase1, phase1_options(base, broken, broken / "train.csv"), "--output", "train.csv", "folder")
    refused(phase2, phase2_options(base, broken, out, tmp_path / "nowhere"), "no directory", "nowhere")
    refused(phase2, phase2_options(base, broken, out, broken), f"{broken} contains no phase 1 adapter")
    (broken / "validation.csv").unlink()
    refused(phase1, phase1_options(base, broken, out), "validation.csv can't be read")


def test_weights_that_were_cut_short_are_refused(
    either: Path, trained: tuple[Path, Path], data: Path, tmp_path: Path
) -> None:
    cut = shutil.copytree(either, tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:-1000])
    refused(phase1, phase1_options(cut, data, tmp_path / "out"), f"weights in {cut} can't be loaded")
    before = shutil.copytree(trained[0], tmp_path / "before")
    (before / WEIGHTS).write_bytes((before / WEIGHTS).read_bytes()[:-1000])
    options = phase2_options(either, data, tmp_path / "out", before)
    refused(phase2, options, f"{before} contains no phase 1 adapter")


def test_an_adapter_that_says_nothing_of_its_base_must_fit(
    either: Path, trained: tuple[Path, Path], data: Path, tmp_path: Path
) -> None:
    before = shutil.copytree(trained[0], tmp_path / "before")
    (before / MODEL_SPEC_FILE).unlink()
    weights = load_file(before / WEIGHTS)
    options = phase2_options(either, data, tmp_path / "out", before)
    for change in (
        {name: weight for name, weight in weights.items() if "layers.1" not in name},
        {name.replace("layers.1", "layers.2"): weight for name, weight in weights.items()},
        {name: weight[:, :32].clone() if "lora_A" in name else weight for name, weight in weights.items()},
    ):
        save_file(change, before / WEIGHTS)
        refused(phase2, options, f"adapter in {before} isn't a phase 1 adapter for this base")


def _table(path: Path, columns: tuple[str, ...], rows: list[tuple[object, ...]] | list[tuple[str, ...]]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(rows)
