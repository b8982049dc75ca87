"""What a training step takes, as it is counted on a device without numbers and as a real one takes it."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from emx_training.finetune.lora import FrozenBase, report_adapter
from emx_training.finetune.memory import _LiveTensors, meta_model, peak_bytes
from emx_training.pretrain.demo_architecture import demo_config
from emx_training.recipes.training_memory import Case, largest_batch
from emx_worker.model.architectures import architecture_of
from emx_worker.model.checkpoint import BaseCheckpoint

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries, as in test_finetuning.py


def test_live_tensors_are_counted_as_long_as_they_live() -> None:
    with _LiveTensors() as live:
        first = torch.zeros(1000, device="meta")
        for _ in range(50):
            first = first + 1  # two at a time
        assert live.peak == pytest.approx(8000, abs=8)
        second, third = torch.zeros(2000, device="meta"), first.view(10, 100)
        assert live.peak == pytest.approx(12_000, abs=8)
        del second, third


def test_weights_gradients_and_the_optimisers_state_are_counted() -> None:
    """Of a model whose activations are small beside its weights."""
    config = demo_config()
    processor: Any = SimpleNamespace(tokenizer=None)
    frozen = meta_model(config, nf4=False)
    base = FrozenBase(frozen, processor, architecture_of(config), BaseCheckpoint(name="demo", sha256=""))
    adapted = report_adapter(base, 256)
    trained = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    stored = sum(weight.numel() * weight.element_size() for weight in adapted.parameters())
    least = stored + 3 * 4 * trained  # gradients and Adam's two moments, in fp32
    assert least < peak_bytes(adapted, 1, 84, 2, 160) < 1.5 * least


def test_more_images_take_more_and_four_bits_take_less() -> None:
    config = demo_config()
    found = {
        (phase, nf4): Case("demo", config, 160, 64, phase, nf4).peaks([1, 8])
        for phase in (1, 2)
        for nf4 in (True, False)
    }
    for peaks in found.values():
        assert peaks[1] < peaks[8] < 8 * peaks[1]
    assert found[1, True][1] < found[1, False][1]
    assert found[1, False][1] < found[2, False][1], "phase 2 trains the projector and the rows besides"


@pytest.mark.parametrize(("gigabytes", "batch"), [(4, None), (8, 2), (24, 4)])
def test_a_card_holds_the_batch_that_leaves_room_for_cuda(gigabytes: int, batch: int | None) -> None:
    assert largest_batch({1: int(5e9), 2: int(7e9), 4: int(11e9)}, gigabytes) == batch
