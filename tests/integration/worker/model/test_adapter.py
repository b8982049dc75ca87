"""Adapters as PEFT saves them, on a checkpoint like MedGemma's, whose vocabulary has no locations."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import Gemma3ForConditionalGeneration, Gemma3Processor

from emx_shared.grammar import LOC_BINS, parse
from emx_training.pretrain.tokenizer import FIRST_LOC
from emx_worker.engine.engine import Engine
from emx_worker.image_task import Generation, ImageTask
from emx_worker.model import loading
from emx_worker.model.int4.quantisation import to_int4
from emx_worker.model.loading import ModelError, load_model
from emx_worker.model.weights import read_weights as read

pytestmark = [
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`"),
    pytest.mark.filterwarnings("ignore:Input and output embeddings are no longer tied"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),
]
Tasks = Callable[[int], list[ImageTask]]
LAYERS = r".*language_model.*\.(q_proj|v_proj|down_proj)"
WEIGHTS = "adapter_model.safetensors"
WAYS: dict[str, dict[str, Any]] = {
    "whole embedding": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "tied embedding": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "new rows": {"trainable_token_indices": {"embed_tokens": list(range(FIRST_LOC, FIRST_LOC + LOC_BINS))}},
    "no rows": {},
    "projector": {"modules_to_save": ["multi_modal_projector"]},
    "rank-stabilised": {"use_rslora": True},
    "dora": {"use_dora": True},
}
"""Ways to train and save the embeddings of added tokens."""


def trained(base: Path, folder: Path, rows: int = FIRST_LOC + LOC_BINS, **how: Any) -> torch.Tensor:
    """Save an adapter with random weights, and return the logits of the model that it was "trained" on."""
    model = Gemma3ForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
    tokenizer = Gemma3Processor.from_pretrained(base).tokenizer
    tokenizer.add_tokens([f"<loc{number:04d}>" for number in range(LOC_BINS)])
    model.resize_token_embeddings(rows, mean_resizing=False)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=LAYERS, init_lora_weights=False, **how))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.05)
    adapted.save_pretrained(folder, save_embedding_layers=False)
    tokenizer.save_pretrained(folder)
    with torch.inference_mode():
        logits: torch.Tensor = adapted.eval()(input_ids=PROBE).logits
    return logits


PROBE = torch.tensor([[2, 3, FIRST_LOC + 5, 10, FIRST_LOC + 1000]])


@pytest.mark.parametrize("way", ["whole embedding", "tied embedding", "new rows"])
def test_a_qlora_adapter_teaches_a_model_without_locations_to_write_boxes(
    way: str, base: Path, tmp_path: Path, tasks: Tasks
) -> None:
    wanted = trained(base, tmp_path / "chest", **WAYS[way])
    (tmp_path / "chest" / "emx.json").write_text('{"name": "chest-reader", "max_new_tokens": 90}')
    for quantisation, apart in (("none", 1e-5), ("bf16", 0.03), ("int4", 0.4), ("nf4", 0.4)):
        loaded = load_model(base, adapter=tmp_path / "chest", quantisation=quantisation)
        with torch.inference_mode():
            logits = loaded.model(input_ids=PROBE).logits
        assert (logits - wanted).norm() / wanted.norm() < apart, quantisation
        generation = Engine(loaded).generate(tasks(1))[0]
        assert isinstance(generation, Generation)
        parse(generation.text)
        provenance = loaded.provenance
        assert provenance.adapter and provenance.adapter.startswith("chest@")
        assert (provenance.name, provenance.revision, loaded.max_new_tokens) == ("chest-reader", "0", 90)


@pytest.mark.parametrize(
    ("way", "streams"),
    [("new rows", True), ("no rows", True), ("projector", True), ("rank-stabilised", True), ("dora", False)],
)
def test_int4_weights_are_those_of_the_whole_model_with_the_adapter_merged(
    way: str, streams: bool, base: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some adapters are merged while the checkpoint is read; others only PEFT can merge."""
    on = base if way == "new rows" else checkpoint
    trained(on, tmp_path / "a", **WAYS[way])
    wanted = load_model(on, adapter=tmp_path / "a", quantisation="none").model
    to_int4(wanted.model.language_model)
    whole: list[Path] = []
    monkeypatch.setattr(
        loading, "read_weights", lambda folder, *a, **k: whole.append(folder) or read(folder, *a, **k)
    )
    made = load_model(on, adapter=tmp_path / "a", quantisation="int4").model
    assert bool(whole) != streams
    tensors = made.state_dict()
    assert tensors.keys() == wanted.state_dict().keys()
    for name, tensor in wanted.state_dict().items():
        if streams or "packed" not in name:  # PEFT merges in bf16
            assert torch.allclose(tensor.float(), tensors[name].float(), atol=1e-2 if not streams else 1e-6), name


def test_an_adapter_changes_what_is_written_and_adapters_are_told_apart(
    checkpoint: Path, tmp_path: Path, tasks: Tasks
) -> None:
    model = Gemma3ForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
    lora = get_peft_model(model, LoraConfig(r=4, target_modules=LAYERS, init_lora_weights=False))
    lora.save_pretrained(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    weights = load_file(tmp_path / "b" / WEIGHTS)
    save_file({name: -value for name, value in weights.items()}, tmp_path / "b" / WEIGHTS)
    generations, names = [], []
    for adapter in (None, tmp_path / "a", tmp_path / "b"):
        loaded = load_model(checkpoint, adapter=adapter, quantisation="int4")
        generations.append(Engine(loaded).generate(tasks(3)))
        names.append(loaded.provenance.adapter)
    texts = [
        [generation.text for generation in batch if isinstance(generation, Generation)] for batch in generations
    ]
    assert texts[0] != texts[1]
    assert names[0] is None
    assert names[1] is not None and names[2] is not None
    assert names[1].removeprefix("a@") != names[2].removeprefix("b@")


def test_an_embedding_padded_to_more_rows_than_tokens_fits(base: Path, tmp_path: Path) -> None:
    wanted = trained(base, tmp_path / "a", rows=FIRST_LOC + LOC_BINS + 64, **WAYS["whole embedding"])
    loaded = load_model(base, adapter=tmp_path / "a", quantisation="none")
    assert loaded.box_decoding.vocabulary == FIRST_LOC + LOC_BINS + 64
    with torch.inference_mode():
        assert torch.allclose(loaded.model(input_ids=PROBE).logits, wanted, atol=1e-4)


def refused(base: Path, adapter: Path, *words: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(base, adapter=adapter, quantisation="none")
    for word in words:
        assert word in str(caught.value)
    with pytest.raises(ModelError):
        load_model(base, adapter=adapter, quantisation="int4")


def test_tokens_without_embeddings_are_refused(base: Path, tmp_path: Path) -> None:
    """PEFT and transformers would give them random rows without a warning."""
    trained(base, tmp_path / "a", **WAYS["no rows"])
    refused(base, tmp_path / "a", "1024 tokens", "trainable_token_indices")


def test_an_adapter_with_locations_changes_the_dialect(base: Path, tmp_path: Path) -> None:
    trained(base, tmp_path / "a", **WAYS["new rows"])
    assert load_model(base, quantisation="none").provenance.dialect == "box_2d"
    assert load_model(base, adapter=tmp_path / "a", quantisation="none").provenance.dialect == "loc"


def test_an_adapter_for_other_layers_is_refused(base: Path, tmp_path: Path) -> None:
    """PEFT loads the weights that it finds a place for, here none, and only warns."""
    trained(base, tmp_path / "a", **WAYS["whole embedding"])
    weights = load_file(tmp_path / "a" / WEIGHTS)
    moved = {name.replace("layers.", "blocks.") if "lora" in name else name: t for name, t in weights.items()}
    save_file(moved, tmp_path / "a" / WEIGHTS)
    refused(base, tmp_path / "a", "other layers", "checkpoint it was trained on")


def test_an_adapter_of_another_shape_is_refused(base: Path, tmp_path: Path) -> None:
    trained(base, tmp_path / "a", **WAYS["new rows"])
    weights = load_file(tmp_path / "a" / WEIGHTS)
    save_file(
        {n: (t[:, :32].clone() if "lora_A" in n else t) for n, t in weights.items()}, tmp_path / "a" / WEIGHTS
    )
    refused(base, tmp_path / "a", "doesn't fit this model")


@pytest.mark.parametrize("broken", [WEIGHTS, "adapter_config.json", "tokenizer.json"])
def test_a_damaged_adapter_is_refused(base: Path, tmp_path: Path, broken: str) -> None:
    trained(base, tmp_path / "a", **WAYS["new rows"])
    file = tmp_path / "a" / broken
    file.write_bytes(file.read_bytes()[:60])
    refused(base, tmp_path / "a", str(tmp_path / "a"))


def test_a_missing_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    refused(base, tmp_path / "nowhere", "no directory")
    (tmp_path / "empty").mkdir()
    refused(base, tmp_path / "empty", WEIGHTS, "save the adapter again")


def test_a_checkpoint_may_name_its_own_adapter_and_another_overrules_it(base: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(base, whole)
    trained(base, whole / "own", **WAYS["new rows"])
    (whole / "emx.json").write_text('{"name": "whole", "adapter": "own"}')
    assert str(load_model(whole, quantisation="none").provenance.adapter).startswith("own@")
    trained(base, tmp_path / "other", **WAYS["new rows"])
    loaded = load_model(whole, adapter=tmp_path / "other", quantisation="none")
    assert str(loaded.provenance.adapter).startswith("other@")
    shutil.rmtree(whole / "own")
    with pytest.raises(ModelError, match="There is no directory"):
        load_model(whole, quantisation="none")
