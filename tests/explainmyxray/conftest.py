"""A random checkpoint, as small as they come; a gateway, and a bad connection to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers.utils import logging

from emx_training.pretrain.demo_architecture import build_processor, random_model, save_checkpoint, tiny_config
from emx_worker.model.checkpoint import ModelSpec
from support.bad_connection import BadConnection, bad_connection_to
from support.gateway import RunningGateway, StartGateway


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)  # models so small gain nothing from more
    logging.disable_progress_bar()
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


@pytest.fixture(scope="module")
def gateway(
    redis_url: str, tmp_path_factory: pytest.TempPathFactory, start_gateway: StartGateway
) -> Iterator[RunningGateway]:
    own = {"EMX_MAX_UPLOAD_BYTES": "1000000", "EMX_WEBHOOK_ALLOW_PRIVATE": "true"}
    with start_gateway(redis_url, tmp_path_factory.mktemp("store"), **own) as made:
        yield made


@pytest.fixture
def bad_connection(gateway: RunningGateway) -> Iterator[BadConnection]:
    with bad_connection_to(gateway.url) as made:
        yield made
