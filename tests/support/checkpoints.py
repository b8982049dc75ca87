"""The smallest checkpoint of each architecture, and images to read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.utils import logging

from emx_shared.contracts.report import ImageFacts
from emx_training.pretrain.demo_architecture import build_processor, random_model, save_checkpoint, tiny_config
from emx_training.pretrain.tokenizer import FIRST_LOC, build_tokenizer
from emx_worker.engine.engine import Engine
from emx_worker.image_task import ImageTask
from emx_worker.model.architectures import Model
from emx_worker.model.checkpoint import ModelSpec, read_config, read_processor
from emx_worker.model.loading import LoadedModel, load_model
from emx_worker.model.weights import read_weights

Tasks = Callable[[int], list[ImageTask]]


@pytest.fixture(scope="session", autouse=True)
def quiet() -> None:
    """Use one thread: such small models gain nothing from more, and lose much while other processes compute."""
    torch.set_num_threads(1)
    logging.disable_progress_bar()


@torch.no_grad()
def _with_opinions(model: Model, tokenizer: Any, ends: list[str], weight_of_ends: float) -> Model:
    """Enlarge random weights, so that reports differ and end at different lengths.

    As they are, random weights slightly prefer to repeat the last token. Larger weights respond to image and past,
    and larger embeddings of full stops, line breaks and ends let reports end.
    """
    for name, weight in model.named_parameters():
        if ("language_model.layers" in name and "proj" in name) or "multi_modal_projector" in name:
            weight.mul_(8)
        elif "position_embedding" in name:
            # Sines as large as these would drown the image; SigLIP's initial values don't.
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) / 8)
    for token in [".", "Ċ", *ends]:
        model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids(token)] *= weight_of_ends
    return model


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a model that writes reports of many lengths, with a sliding window that is shorter than its prompt."""
    folder, config = tmp_path_factory.mktemp("model") / "tiny", tiny_config()
    config.text_config.sliding_window = 16
    spec = ModelSpec(name="tiny", revision="0", demo=True, max_new_tokens=140)
    processor = build_processor(config)
    model = _with_opinions(random_model(0, config), processor.tokenizer, ["<end_of_turn>"], 3)
    save_checkpoint(model, processor, spec, folder)
    return folder


@pytest.fixture(scope="session")
def json_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save such a model whose tokenizer has no location tokens, like MedGemma's."""
    folder, config = tmp_path_factory.mktemp("model") / "json", tiny_config()
    processor = build_processor(config)
    model = _with_opinions(random_model(6, config), processor.tokenizer, ["<end_of_turn>", "{", '"'], 4)
    save_checkpoint(model, processor, ModelSpec(name="json", revision="0", prompt="?", max_new_tokens=200), folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    for token in tokenizer["added_tokens"]:
        token["content"] = token["content"].replace("<loc", "<none")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


@pytest.fixture(scope="session", params=["paligemma", "paligemma2"])
def paligemma_checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save such a model of PaliGemma 1 and of PaliGemma 2."""
    random: Path = request.getfixturevalue(request.param)
    config = read_config(random)
    model, processor = read_weights(random, config, dtype=torch.float32), read_processor(random, config)
    folder = tmp_path_factory.mktemp("model") / random.name
    spec = ModelSpec(name=random.name, revision="0", max_new_tokens=140)
    save_checkpoint(_with_opinions(model, processor.tokenizer, ["<eos>"], 5), processor, spec, folder)
    return folder


@pytest.fixture(scope="session")
def dense(checkpoint: Path) -> LoadedModel:
    """Load the checkpoint in fp32."""
    return load_model(checkpoint, quantisation="none")


@pytest.fixture(scope="session", params=["none", "int4", "nf4"])
def loaded(request: pytest.FixtureRequest, checkpoint: Path) -> LoadedModel:
    """Load the checkpoint with each kind of weights."""
    return load_model(checkpoint, quantisation=request.param)


@pytest.fixture
def engine(dense: LoadedModel) -> Engine:
    return Engine(dense)


@pytest.fixture(scope="session")
def tasks() -> Tasks:
    """Make the first ``count`` of a fixed row of images, 200 × 120 pixels, each with another pattern."""

    def first(count: int) -> list[ImageTask]:
        random = np.random.default_rng(0)
        facts = ImageFacts(width=200, height=120, media_type="image/png", sha256="0" * 64)
        patterns = [random.integers(0, 255, (n + 2, n + 3), dtype=np.uint8) for n in range(count)]
        images = [Image.fromarray(pattern).resize((200, 120)) for pattern in patterns]
        return [ImageTask(id=str(n), image=image, facts=facts) for n, image in enumerate(images)]

    return first


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint, as small as they come, whose reports depend on the image and have locations."""
    folder, config = tmp_path_factory.mktemp("model") / "tiny", tiny_config()
    model, processor = random_model(0, config), build_processor(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ("language_model.layers" in name and "proj" in name) or "mm_input_projection" in name:
                weight.mul_(8)  # so that a report depends on the image
        for token in (".", "Ċ"):  # so that findings end, and locations follow
            model.get_input_embeddings().weight[processor.tokenizer.convert_tokens_to_ids(token)] *= 3
    save_checkpoint(model, processor, ModelSpec(name="tiny", revision="0", demo=True, max_new_tokens=120), folder)
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without location tokens, and with a few rows more than it has tokens, as Gemma 3 has."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    made = json.loads(build_tokenizer().backend_tokenizer.to_str())
    made["added_tokens"] = [token for token in made["added_tokens"] if token["id"] < FIRST_LOC]
    special = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(made)),
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        extra_special_tokens=special,
    )
    folder, config = tmp_path_factory.mktemp("base") / "base", tiny_config()
    model = random_model(0, config)
    model.resize_token_embeddings(FIRST_LOC + 16, mean_resizing=False)
    spec = ModelSpec(name="base", revision="0", max_new_tokens=140)
    save_checkpoint(model, build_processor(config, tokenizer), spec, folder)
    return folder


@pytest.fixture(scope="session")
def paligemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PaliGemma at its smallest."""
    from transformers import GemmaConfig

    return _paligemma(tmp_path_factory.mktemp("paligemma") / "paligemma", GemmaConfig)


@pytest.fixture(scope="session")
def paligemma2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PaliGemma 2 at its smallest, with a sliding window that is shorter than its prompt."""
    from transformers import Gemma2Config

    return _paligemma(tmp_path_factory.mktemp("paligemma2") / "paligemma2", Gemma2Config, sliding_window=16)


def _paligemma(folder: Path, text_config: Any, **more: Any) -> Path:
    """Random weights; as published ones, its vocabulary has words, <locNNNN>, <segNNN>, <image> and spare rows."""
    from transformers import (
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
        PreTrainedTokenizerFast,
        SiglipVisionConfig,
    )
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer().backend_tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
    )
    tokenizer.add_tokens([f"<seg{number:03d}>" for number in range(128)])
    images = SiglipImageProcessorPil(size={"height": 32, "width": 32}, image_seq_length=16)
    processor = PaliGemmaProcessor(images, tokenizer)
    shape: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
    vision = SiglipVisionConfig(**shape, image_size=32, patch_size=8, num_attention_heads=1, vision_use_head=False)
    rows = len(tokenizer) + 63
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 64}
    config = PaliGemmaConfig(
        text_config=text_config(**shape, **heads, vocab_size=rows, **more),
        vision_config=vision,
        vocab_size=rows,
        image_token_index=processor.image_token_id,
        projection_dim=64,
        hidden_size=64,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = PaliGemmaForConditionalGeneration(config)
    spec = ModelSpec(name=folder.name, revision="0", max_new_tokens=140)
    save_checkpoint(model.eval(), processor, spec, folder)
    return folder
