"""What a device is waited for, on torch's *meta* device: its tensors have shapes, but no numbers to look at."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from emx_training.pretrain.demo_architecture import random_model, tiny_config
from emx_worker.engine.decoder_runner import DecoderRunner
from emx_worker.engine.head import GreedyHead
from emx_worker.engine.progress import EngineProgress
from emx_worker.engine.slot_cache import SlotCache, put

META = torch.device("meta")


@pytest.fixture
def model() -> Any:
    return random_model(0, tiny_config()).eval().to(META)


def runner_of(model: Any) -> DecoderRunner:
    """A runner whose sequences are past their prompts."""
    runner, config = object.__new__(DecoderRunner), model.config.get_text_config()
    runner._model, runner._device, runner._decoder = model, META, model.model.language_model
    runner._architecture = SimpleNamespace(
        sees_all={"full_attention": None, "sliding_attention": None}, first_position=0
    )  # type: ignore[assignment]
    runner._groups = config.num_attention_heads // config.num_key_value_heads
    runner._window, runner._progress = config.sliding_window, EngineProgress()
    runner.slots = SlotCache(config, 4, 64, torch.float32, META)
    return runner


@pytest.mark.parametrize("new", [[1, 1], [1, 3]], ids=["one token each", "forced tokens"])
def test_a_decoding_step_waits_for_the_device_once(model: Any, new: list[int]) -> None:
    config = model.config.get_text_config()
    allowed = np.zeros((2, config.vocab_size), bool)
    allowed[0, 5:9], allowed[1] = True, True
    head = GreedyHead(model)
    head._few = 100
    sequences: Any = [SimpleNamespace(prompt_tokens=10, tokens=list(range(n)), cached=10) for n in new]
    hidden = runner_of(model).decode_step(sequences)
    assert (hidden.shape, hidden.device) == ((2, config.hidden_size), META)
    with torch.inference_mode():
        order, chosen = head._chosen(hidden, allowed)
    assert (order, chosen.shape, chosen.device) == ([0, 1], (3, 2), META)
    with pytest.raises(NotImplementedError, match="copy out of meta"):
        head.choose(hidden, allowed)  # it copies the choices, and asks for nothing before


@pytest.mark.parametrize(
    "wait", [torch.Tensor.item, torch.Tensor.tolist, bool, torch.Tensor.nonzero, lambda x: x[x > 0]]
)
def test_the_meta_device_tells_of_a_wait(wait: Callable[[Any], Any]) -> None:
    with pytest.raises((NotImplementedError, RuntimeError)):
        wait(torch.zeros(1, device=META))


def test_put_copies_the_numbers() -> None:
    assert put(np.array([1, 2]), torch.device("cpu")).tolist() == [1, 2]
