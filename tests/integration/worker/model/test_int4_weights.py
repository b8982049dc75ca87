"""int4 weights: quantised while a checkpoint is read, cached on disk, quantised again if the cache is damaged."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from emx_training.pretrain.demo_architecture import tiny_config
from emx_training.recipes.full_size import medgemma_config, write
from emx_worker.engine.engine import Engine
from emx_worker.image_task import Generation, ImageTask
from emx_worker.model.checkpoint import ModelError, read_config
from emx_worker.model.int4 import cache, group_fitting, quantisation
from emx_worker.model.int4.quantisation import HalfLinear, Int4Linear, rest_to_fp32, to_int4
from emx_worker.model.int4.stored_tensors import stored_tensors
from emx_worker.model.loading import LoadedModel, load_model
from emx_worker.model.weights import read_weights

Tasks = Callable[[int], list[ImageTask]]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty cache for models of any size, and return the folder of its files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_WORTHWHILE", 0)
    return tmp_path / "cache" / "explainmyxray" / "int4"


def texts(loaded: LoadedModel, tasks: list[ImageTask]) -> list[str]:
    return [answer.text for answer in Engine(loaded).generate(tasks) if isinstance(answer, Generation)]


def same(one: LoadedModel, other: LoadedModel) -> bool:
    mine, theirs = one.model.state_dict(), other.model.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_weights_quantised_while_they_are_read_are_those_quantised_afterwards(checkpoint: Path) -> None:
    streamed = load_model(checkpoint, quantisation="int4").model
    whole = read_weights(checkpoint, read_config(checkpoint), dtype=torch.bfloat16)
    to_int4(whole.model.language_model)
    rest_to_fp32(whole)
    assert any(isinstance(module, Int4Linear) for module in streamed.modules())
    wanted = whole.state_dict()
    for name, weights in streamed.state_dict().items():
        assert weights.dtype == wanted[name].dtype, name
        assert torch.equal(weights, wanted[name]), name
    assert streamed.lm_head.weight is streamed.get_input_embeddings().weight


def test_paligemma_is_streamed_too(paligemma_checkpoint: Path) -> None:
    loaded = load_model(paligemma_checkpoint, quantisation="int4")
    decoder = [m for m in loaded.model.model.language_model.modules() if isinstance(m, nn.Linear | Int4Linear)]
    assert {type(layer) for layer in decoder} == {Int4Linear}


def test_tensors_are_read_as_safetensors_reads_them(checkpoint: Path) -> None:
    stored, wanted = stored_tensors(checkpoint), load_file(checkpoint / "model.safetensors")
    assert stored.keys() == wanted.keys()
    assert all(torch.equal(stored[name][...], wanted[name]) for name in wanted)


def test_a_second_start_finds_the_weights_of_the_first(checkpoint: Path, kept: Path, tasks: Tasks) -> None:
    first = load_model(checkpoint, quantisation="int4")
    (file,) = kept.iterdir()
    made = file.stat().st_mtime_ns
    second = load_model(checkpoint, quantisation="int4")
    assert file.stat().st_mtime_ns == made
    assert same(first, second)
    assert texts(first, tasks(3)) == texts(second, tasks(3))


def test_the_cached_weights_are_used(checkpoint: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_model(checkpoint, quantisation="int4")
    monkeypatch.setattr(quantisation, "quantise", lambda _: pytest.fail("quantised again"))
    load_model(checkpoint, quantisation="int4")


@pytest.mark.parametrize("damage", ["cut", "garbage", "lacking"])
def test_damaged_cached_weights_are_quantised_again(checkpoint: Path, kept: Path, damage: str) -> None:
    first = load_model(checkpoint, quantisation="int4")
    wanted = {name: tensor.clone() for name, tensor in first.model.state_dict().items()}
    del first
    (file,) = kept.iterdir()
    whole = file.read_bytes()
    if damage == "lacking":
        tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
        tensors.pop(next(name for name in tensors if name.endswith("packed")))
        file.unlink()
        save_file(tensors, file)
    else:
        file.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"\xff" * 1000)
    again = load_model(checkpoint, quantisation="int4").model.state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in wanted.items())
    assert file.stat().st_size == len(whole)


def test_another_checkpoint_has_weights_of_its_own(checkpoint: Path, kept: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    tensors = {name: tensor * 2 for name, tensor in load_file(copy / "model.safetensors").items()}
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    assert not same(load_model(checkpoint, quantisation="int4"), load_model(copy, quantisation="int4"))
    assert len(list(kept.iterdir())) == 2


def test_a_full_disk_only_costs_the_next_start(
    checkpoint: Path, kept: Path, monkeypatch: pytest.MonkeyPatch, tasks: Tasks
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "save_file", full)
    assert texts(load_model(checkpoint, quantisation="int4"), tasks(1))
    assert not list(kept.iterdir())


def test_weights_cached_with_other_groups_are_quantised_again(
    checkpoint: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        for module in (cache, group_fitting, quantisation):
            before.setattr(module, "GROUP", 64)
        coarse = load_model(checkpoint, quantisation="int4")
    assert not same(coarse, load_model(checkpoint, quantisation="int4"))
    assert len(list(kept.iterdir())) == 2


def test_a_small_model_is_not_cached(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    load_model(checkpoint, quantisation="int4")
    assert not (tmp_path / "cache").exists()


def test_a_large_embedding_stays_in_bf16_and_is_read_with(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tasks: Tasks
) -> None:
    size = load_model(checkpoint).model.get_input_embeddings().weight.numel()
    monkeypatch.setattr(quantisation, "LARGEST_IN_FP32", size - 1)
    loaded = load_model(checkpoint, quantisation="int4")
    assert loaded.model.get_input_embeddings().weight.dtype == torch.bfloat16
    assert loaded.model.lm_head.weight is loaded.model.get_input_embeddings().weight
    assert loaded.model.model.vision_tower.dtype == torch.float32
    assert len(texts(loaded, tasks(3))) == 3


def test_a_large_tower_stays_in_bf16_and_computes_in_it_where_there_are_units_for_that(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tasks: Tasks
) -> None:
    small = texts(load_model(checkpoint, quantisation="int4"), tasks(3))
    monkeypatch.setattr(quantisation, "LARGE_TOWER", 1)
    for units, dtypes in ((True, {torch.bfloat16}), (False, {torch.bfloat16, torch.float32})):
        monkeypatch.setattr(quantisation, "BF16_UNITS", units)
        loaded = load_model(checkpoint, quantisation="int4")
        tower = loaded.model.model.vision_tower
        assert {weights.dtype for weights in tower.parameters()} == dtypes
        assert {type(layer) for layer in tower.modules() if isinstance(layer, nn.Linear)} == {HalfLinear}
        assert loaded.model.get_input_embeddings().weight.dtype == torch.float32
        # The checkpoint is in bf16: computed in fp32, it is the same model.
        assert texts(loaded, tasks(3)) == small or units


@pytest.mark.parametrize("file", ["model-00000.safetensors", "model.safetensors.index.json"])
def test_a_sharded_checkpoint_that_is_cut_short_is_refused(tmp_path: Path, file: str) -> None:
    write(tiny_config(), tmp_path / "whole")
    load_model(tmp_path / "whole", quantisation="int4")
    damaged = tmp_path / "whole" / file
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(ModelError, match=r"can't be loaded .*fetch them again"):
        load_model(tmp_path / "whole", quantisation="int4")


def test_the_full_size_has_medgemmas_shape() -> None:
    from transformers import Gemma3ForConditionalGeneration

    with torch.device("meta"):
        model = Gemma3ForConditionalGeneration(medgemma_config())
    assert sum(weights.numel() for weights in model.parameters()) == 4_300_079_472
