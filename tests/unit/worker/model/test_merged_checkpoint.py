"""A checkpoint with its adapter merged, as transformers itself loads it."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from emx_shared.demo_files import DEMO_MODEL
from emx_worker.model.checkpoint import ModelError
from emx_worker.model.loading import load_model
from emx_worker.model.merged_checkpoint import write_merged_checkpoint


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("merged") / "model"
    write_merged_checkpoint(DEMO_MODEL, None, folder)
    return folder


def test_it_has_the_adapters_weights_and_needs_no_adapter(merged: Path) -> None:
    beside, alone = load_model(DEMO_MODEL, quantisation="none"), load_model(merged, quantisation="none")
    assert beside.provenance.adapter and alone.provenance.adapter is None
    expected, base = (
        beside.model.state_dict(),
        AutoModelForImageTextToText.from_pretrained(DEMO_MODEL).state_dict(),
    )
    changed = [name for name, weight in expected.items() if (weight - base[name].float()).abs().max() > 1e-3]
    assert len(changed) > 20
    for name in changed:
        torch.testing.assert_close(alone.model.state_dict()[name], expected[name], rtol=0.01, atol=1e-3)
    assert (alone.prompt, alone.max_new_tokens) == (beside.prompt, beside.max_new_tokens)
    assert alone.guard is not None and beside.guard is not None
    assert alone.guard.threshold == beside.guard.threshold
    assert alone.provenance.demo


def test_transformers_loads_it_by_itself(merged: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(merged)
    assert model.dtype == torch.bfloat16
    assert len(AutoProcessor.from_pretrained(merged).tokenizer) == model.get_input_embeddings().num_embeddings


def test_a_folder_with_files_is_left_alone(merged: Path) -> None:
    with pytest.raises(ModelError, match="has files already"):
        write_merged_checkpoint(DEMO_MODEL, None, merged)
