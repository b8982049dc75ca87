"""Adapters of every kind and age give what PEFT computes beside the weights, or are refused with the reason."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Gemma3ForConditionalGeneration

from emx_training.pretrain.tokenizer import FIRST_LOC
from emx_worker.model import loading
from emx_worker.model.adapter_merging import AdapterMerge
from emx_worker.model.int4 import cache
from emx_worker.model.int4.quantisation import to_int4
from emx_worker.model.loading import ModelError, load_model
from emx_worker.model.saved_adapter import SavedAdapter

pytestmark = [
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`"),
    pytest.mark.filterwarnings("ignore:Model with `tie_word_embeddings=True`"),
    pytest.mark.filterwarnings("ignore:Input and output embeddings are no longer tied"),
    pytest.mark.filterwarnings("ignore:`ensure_weight_tying` is set"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to True"),
    pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed"),
    pytest.mark.filterwarnings("ignore:Adapter 'default'. . LoRA tensor"),
    pytest.mark.filterwarnings("ignore:Unsupported layer type"),
]
WEIGHTS = "adapter_model.safetensors"
LAYERS = r".*language_model.*\.(q_proj|v_proj|down_proj)"
PROBE = torch.tensor([[2, 3, FIRST_LOC + 5, 10, FIRST_LOC + 1000, 7]])
ROWS = [3, 10, FIRST_LOC + 5]
LORA: dict[str, dict[str, Any]] = {
    "layers": {"target_modules": LAYERS},
    "list of layers": {"target_modules": ["q_proj", "down_proj"], "exclude_modules": r".*layers\.1\..*"},
    "some layers": {"target_modules": ["q_proj"], "layers_to_transform": [0]},
    "all linear": {"target_modules": "all-linear"},
    "vision tower": {"target_modules": r".*vision_tower.*\.(q_proj|fc1)"},
    "ranks and alphas": {
        "target_modules": LAYERS,
        "rank_pattern": {r"layers\.0\..*v_proj": 2, "down_proj": 6},
        "alpha_pattern": {"q_proj": 32, r".*layers\.1\..*down_proj": 3},
    },
    "rank-stabilised ranks": {"target_modules": LAYERS, "use_rslora": True, "rank_pattern": {"v_proj": 9}},
    "dora": {"target_modules": LAYERS, "use_dora": True},
    "fan in, fan out": {"target_modules": LAYERS, "fan_in_fan_out": True},
    "bias of lora": {"target_modules": LAYERS, "lora_bias": True},
    "all biases": {"target_modules": r".*\.(q_proj|v_proj)", "bias": "all"},
    "biases beside lora": {"target_modules": r".*\.(q_proj|v_proj)", "bias": "lora_only"},
    "head": {"target_modules": ["lm_head"]},
    "embedding": {"target_modules": ["embed_tokens"]},
    "head and embedding": {"target_modules": ["lm_head", "embed_tokens", "q_proj"]},
    "head and embedding tied": {"target_modules": ["embed_tokens", "q_proj"], "ensure_weight_tying": True},
    "head with bias": {"target_modules": ["lm_head"], "lora_bias": True},
    "whole head": {"target_modules": LAYERS, "modules_to_save": ["lm_head"]},
    "whole embedding": {"target_modules": LAYERS, "modules_to_save": ["embed_tokens"]},
    "whole embedding tied": {
        "target_modules": LAYERS, "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True
    },
    "whole head and embedding": {"target_modules": LAYERS, "modules_to_save": ["lm_head", "embed_tokens"]},
    "rows": {"target_modules": LAYERS, "trainable_token_indices": ROWS},
    "rows of the embedding": {"target_modules": LAYERS, "trainable_token_indices": {"embed_tokens": ROWS}},
    "projector and rows": {
        "target_modules": LAYERS, "modules_to_save": ["multi_modal_projector"], "trainable_token_indices": ROWS
    },
    "began with the principal parts": {"target_modules": LAYERS, "init_lora_weights": "pissa"},
    "began with orthogonal parts": {"target_modules": LAYERS, "init_lora_weights": "olora"},
}  # fmt: skip
STREAMED = {
    "layers", "list of layers", "some layers", "all linear", "vision tower", "ranks and alphas",
    "rank-stabilised ranks", "fan in, fan out", "rows", "rows of the embedding", "projector and rows",
}  # fmt: skip
"""Kinds that are merged while the checkpoint is read."""
OTHERS: dict[str, PeftConfig] = {
    "loha": peft.LoHaConfig(r=4, target_modules=LAYERS),
    "lokr": peft.LoKrConfig(r=4, target_modules=LAYERS),
    "ia3": peft.IA3Config(target_modules=LAYERS, feedforward_modules=r".*down_proj"),
    "adalora": peft.AdaLoraConfig(init_r=4, target_r=2, total_step=10, target_modules=LAYERS),
    "oft": peft.OFTConfig(r=0, oft_block_size=4, target_modules=LAYERS),
    "vera": peft.VeraConfig(r=4, target_modules=r".*language_model.*q_proj"),
    "hra": peft.HRAConfig(r=4, target_modules=LAYERS),
    "norms": peft.LNTuningConfig(target_modules=r".*language_model.*layernorm"),
    "tokens alone": peft.TrainableTokensConfig(token_indices=ROWS, target_modules=["embed_tokens"]),
}


def unmerged(checkpoint: Path, adapter: Path) -> Tensor:
    """What PEFT computes with an adapter beside the weights."""
    model = Gemma3ForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
    with torch.inference_mode():
        logits: Tensor = PeftModel.from_pretrained(model, str(adapter)).eval()(input_ids=PROBE).logits
    return logits


def trained(checkpoint: Path, folder: Path, config: PeftConfig, whole: bool = False) -> Tensor:
    """Save an adapter with random weights, and return the logits of PEFT's model with it."""
    model = Gemma3ForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
    torch.manual_seed(1)
    adapted = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.1)
    adapted.save_pretrained(folder, save_embedding_layers=whole)
    with torch.inference_mode():
        logits: Tensor = adapted.eval()(input_ids=PROBE).logits
    return logits


def logits_of(checkpoint: Path, adapter: Path, quantisation: str) -> Tensor:
    with torch.inference_mode():
        model = load_model(checkpoint, adapter=adapter, quantisation=quantisation).model
        logits: Tensor = model(input_ids=PROBE).logits
    return logits


def beside_nf4(checkpoint: Path, adapter: Path) -> Tensor:
    """The logits of PEFT's model on NF4 weights."""
    model = load_model(checkpoint, quantisation="nf4").model
    with torch.inference_mode():
        logits: Tensor = PeftModel.from_pretrained(model, str(adapter)).eval()(input_ids=PROBE).logits
    return logits


def int4_of(checkpoint: Path, adapter: Path) -> Tensor:
    """The logits of the merged model in fp32 whose decoder was made int4 afterwards."""
    model = load_model(checkpoint, adapter=adapter, quantisation="none").model
    to_int4(model.model.language_model)
    with torch.inference_mode():
        logits: Tensor = model(input_ids=PROBE).logits
    return logits


def apart(logits: Tensor, wanted: Tensor) -> float:
    return float((logits.float() - wanted).norm() / wanted.norm())


def with_earlier_names(adapter: Path) -> None:
    """Give an adapter the names that it would have before transformers 4.52."""
    moved = {
        "model.language_model.": "language_model.model.",
        "lm_head.": "language_model.lm_head.",
        "model.vision_tower.": "vision_tower.",
        "model.multi_modal_projector.": "multi_modal_projector.",
    }

    def earlier(name: str) -> str:
        bare = name.removeprefix("base_model.model.")
        for since, before in moved.items():
            if bare.startswith(since):
                return f"base_model.model.{before}{bare.removeprefix(since)}"
        raise AssertionError(name)

    tensors = load_file(adapter / WEIGHTS)
    save_file({earlier(name): tensor for name, tensor in tensors.items()}, adapter / WEIGHTS)


def test_rows_of_the_embedding_are_written_once_and_not_in_each_forward_pass(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = peft.LoraConfig(r=4, target_modules=LAYERS, trainable_token_indices={"embed_tokens": ROWS})
    trained(checkpoint, tmp_path / "adapter", config)
    expected = beside_nf4(checkpoint, tmp_path / "adapter")
    copy, copied = TrainableTokensLayer.get_merged_weights, list[object]()

    def noted(layer: TrainableTokensLayer, names: list[str]) -> Tensor:
        copied.append(layer)
        found: Tensor = copy(layer, names)
        return found

    monkeypatch.setattr(TrainableTokensLayer, "get_merged_weights", noted)
    torch.testing.assert_close(logits_of(checkpoint, tmp_path / "adapter", "nf4"), expected)
    assert not copied


@pytest.mark.parametrize("kind", [*LORA, *OTHERS])
def test_an_adapter_gives_what_peft_computes_beside_the_weights(
    kind: str, checkpoint: Path, tmp_path: Path
) -> None:
    config = OTHERS.get(kind) or LoraConfig(r=4, lora_alpha=12, **{"init_lora_weights": False, **LORA[kind]})
    wanted = trained(checkpoint, tmp_path / "a", config)
    if "init_lora_weights" not in LORA.get(kind, {}):
        assert apart(unmerged(checkpoint, tmp_path / "a"), wanted) < 1e-5
    assert apart(logits_of(checkpoint, tmp_path / "a", "none"), wanted) < 1e-4
    # What PEFT merges, it merges in bf16
    streams = AdapterMerge.mergeable(SavedAdapter(tmp_path / "a"))
    assert streams == (kind in STREAMED)
    near = 0.02 if streams else 0.25  # of two ranges that lose as much, a last bit decides
    assert apart(logits_of(checkpoint, tmp_path / "a", "int4"), int4_of(checkpoint, tmp_path / "a")) < near
    if kind in LORA and "init_lora_weights" not in LORA[kind]:
        assert apart(logits_of(checkpoint, tmp_path / "a", "nf4"), beside_nf4(checkpoint, tmp_path / "a")) < 1e-4


@pytest.mark.parametrize("kind", ["layers", "head", "embedding", "rows", "whole head", "whole head and embedding"])
def test_embeddings_that_peft_saves_beside_an_adapter_are_taken(
    kind: str, checkpoint: Path, tmp_path: Path
) -> None:
    """It does so by itself where the vocabulary was resized."""
    config = LoraConfig(r=4, lora_alpha=12, init_lora_weights=False, **LORA[kind])
    wanted = trained(checkpoint, tmp_path / "a", config, whole=True)
    assert any(
        name.endswith(("embed_tokens.weight", "base_layer.weight")) for name in load_file(tmp_path / "a" / WEIGHTS)
    )
    assert apart(logits_of(checkpoint, tmp_path / "a", "none"), wanted) < 1e-4
    assert apart(logits_of(checkpoint, tmp_path / "a", "int4"), int4_of(checkpoint, tmp_path / "a")) < 0.25


@pytest.mark.parametrize("kind", [kind for kind in LORA if kind not in ("fan in, fan out",)])
def test_an_adapter_with_names_from_before_transformers_4_52_is_the_same(
    kind: str, checkpoint: Path, tmp_path: Path
) -> None:
    config = LoraConfig(r=4, lora_alpha=12, **{"init_lora_weights": False, **LORA[kind]})
    trained(checkpoint, tmp_path / "a", config)
    before = {name: logits_of(checkpoint, tmp_path / "a", name) for name in ("none", "int4")}
    with_earlier_names(tmp_path / "a")
    for quantisation, wanted in before.items():
        assert torch.equal(logits_of(checkpoint, tmp_path / "a", quantisation), wanted), quantisation


def test_patterns_that_name_modules_as_they_were_are_followed(checkpoint: Path, tmp_path: Path) -> None:
    patterns = {
        "rank_pattern": {"{}layers.0.self_attn.q_proj": 2},
        "alpha_pattern": {"{}layers.1.mlp.down_proj": 5},
    }

    def named(prefix: str) -> dict[str, Any]:
        return {
            kind: {name.format(prefix): value for name, value in kept.items()} for kind, kept in patterns.items()
        }

    config = LoraConfig(r=4, target_modules=LAYERS, init_lora_weights=False, **named("model.language_model."))
    wanted = trained(checkpoint, tmp_path / "a", config)
    with_earlier_names(tmp_path / "a")
    file = tmp_path / "a" / "adapter_config.json"
    said = json.loads(file.read_text()) | named("language_model.model.")
    said["target_modules"] = r"^language_model\.model\.layers\.\d+\..*\.(q_proj|v_proj|down_proj)$"
    file.write_text(json.dumps(said))
    assert apart(logits_of(checkpoint, tmp_path / "a", "none"), wanted) < 1e-5
    assert apart(logits_of(checkpoint, tmp_path / "a", "int4"), int4_of(checkpoint, tmp_path / "a")) < 0.03


@pytest.mark.parametrize(
    ("config", "word"),
    [
        (peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4), "PROMPT_TUNING"),
        (peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4), "PREFIX_TUNING"),
        (LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], alora_invocation_tokens=[3, 4]), "aLoRA"),
        (LoraConfig(target_modules=["q_proj"], layer_replication=[(0, 2), (1, 2)]), "layer_replication"),
        (LoraConfig(target_parameters=["q_proj.weight"]), "target_parameters"),
    ],
)
@pytest.mark.parametrize("quantisation", ["none", "int4", "nf4"])
def test_an_adapter_that_would_be_left_out_is_refused(
    config: PeftConfig, word: str, quantisation: str, checkpoint: Path, tmp_path: Path
) -> None:
    """Its weights don't matter: what they mean is outside the model's layers."""
    config.save_pretrained(str(tmp_path))
    save_file({"base_model.model.lm_head.lora_A.weight": torch.zeros(4, 4)}, tmp_path / WEIGHTS)
    with pytest.raises(ModelError, match=word) as refused:
        load_model(checkpoint, adapter=tmp_path, quantisation=quantisation)
    assert "isn't supported" in str(refused.value)


@pytest.mark.parametrize("kind", ["head", "embedding", "whole head", "layers", "bias of lora"])
def test_int4_weights_from_the_cache_are_those_that_were_made(
    kind: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Head and embedding that an adapter parted stay so; biases that it added have no place in a cache."""
    monkeypatch.setattr(cache, "_WORTHWHILE", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    trained(checkpoint, tmp_path / "a", LoraConfig(r=4, init_lora_weights=False, **LORA[kind]))
    wanted = int4_of(checkpoint, tmp_path / "a")
    assert apart(logits_of(checkpoint, tmp_path / "a", "int4"), wanted) < 0.15
    made: list[Path] = []
    quantised = loading._quantised_int4
    monkeypatch.setattr(
        loading, "_quantised_int4", lambda folder, *rest: made.append(folder) or quantised(folder, *rest)
    )
    assert apart(logits_of(checkpoint, tmp_path / "a", "int4"), wanted) < 0.15
    assert bool(made) == (kind == "bias of lora")
