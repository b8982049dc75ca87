"""A random checkpoint, as small as they come."""

from pathlib import Path

import pytest
import torch
from transformers.utils import logging

from training.architecture import build_processor, random_model, save_checkpoint, tiny_config
from worker.checkpoint import Manifest


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
    save_checkpoint(model, processor, Manifest(name="tiny", revision="0", demo=True, max_new_tokens=120), folder)
    return folder
