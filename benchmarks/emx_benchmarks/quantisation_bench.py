"""Measures what each kind of weights loses of a trained language model, beside its own weights in fp32."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from emx_benchmarks.kernel_bench import nf4_linear
from emx_worker.model.int4.group_fitting import GROUP
from emx_worker.model.int4.quantisation import Int4Linear, can_be_int4

WINDOW = 256
"""Tokens of a window. A model sees nothing before it, so a window's first tokens are hard to guess."""

_NF4_BLOCK, _NF4_SECOND_BLOCK = 64, 256
"""Weights that share a scale in NF4, and scales that share one themselves (Dettmers et al., QLoRA, 2023)."""

_COARSE = 64


@dataclass(frozen=True)
class TrainedModel:
    """A language model with its own weights in fp32, and what reads text for it.

    Attributes:
        name: what figures call it.
        model: takes ``input_ids`` and returns ``logits``, as those of transformers do.
        tokenizer: a fast one of transformers, which has a beginning-of-sequence token.
    """

    name: str
    model: Any
    tokenizer: Any


@dataclass
class Loss:
    """What a kind of weights loses of the reference, summed over tokens.

    Attributes:
        tokens: that were predicted.
        nats: negative log-likelihood of the text.
        divergence: Kullback–Leibler divergence from the reference's distribution of the next token, in nats.
        agreed: tokens of which the likeliest next token is the reference's.
    """

    tokens: int = 0
    nats: float = 0.0
    divergence: float = 0.0
    agreed: int = 0

    def add(self, wanted: Tensor, found: Tensor, following: Tensor) -> None:
        """Count the tokens of a window.

        Args:
            wanted: log-probabilities of the reference, (tokens, vocabulary).
            found: those of this kind, the same shape.
            following: ids of the tokens that the text goes on with, (tokens,).
        """
        self.tokens += len(following)
        self.nats += float(nn.functional.nll_loss(found, following, reduction="sum"))
        self.divergence += float(nn.functional.kl_div(found, wanted, reduction="sum", log_target=True))
        self.agreed += int((wanted.argmax(dim=-1) == found.argmax(dim=-1)).sum())

    def __add__(self, other: "Loss") -> "Loss":
        return Loss(
            self.tokens + other.tokens,
            self.nats + other.nats,
            self.divergence + other.divergence,
            self.agreed + other.agreed,
        )

    def figures(self) -> dict[str, float]:
        """Return perplexity, KL divergence and agreement, each per token."""
        return {
            "perplexity": round(math.exp(self.nats / self.tokens), 3),
            "kl": round(self.divergence / self.tokens, 6),
            "top1": round(self.agreed / self.tokens, 4),
        }


@dataclass(frozen=True)
class _Kind:
    """A model whose decoder has one kind of weights. All else stays in fp32, except in bf16.

    Attributes:
        model: with these weights.
        bits: that a weight of the decoder's linear layers takes, scales included.
        losses: by the text's name.
    """

    model: Any
    bits: float
    losses: dict[str, Loss] = field(default_factory=dict)


@torch.inference_mode()
def bench_quantisation(trained: TrainedModel, texts: dict[str, str], windows: int = 16) -> dict[str, Any]:
    """Measure each kind of weights on the same windows of text.

    The kinds: ``fp32``, the reference; ``bf16``, arithmetic included; ``int4``, the layer that serves;
    ``int4_g64``, groups of 64 whose codes span all their weights, as served before; ``nf4``, bitsandbytes' layer
    with double quantisation.

    Args:
        trained: the reference. It is measured on this CPU.
        texts: by name; each must have ``windows`` windows of ``WINDOW`` tokens.
        windows: to read of each text.

    Returns:
        The figures: by kind, ``perplexity``, ``kl`` (nats) and ``top1`` per token over all texts, the same by
        text, and ``bits``, those of a weight.

    Raises:
        ValueError: if a text is too short.
    """
    kinds = _kinds(trained.model)
    for name, text in texts.items():
        for ids in _windows(trained.tokenizer, name, text, windows):
            wanted = _log_probabilities(trained.model, ids)
            for kind in kinds.values():
                found = wanted if kind.model is trained.model else _log_probabilities(kind.model, ids)
                kind.losses.setdefault(name, Loss()).add(wanted, found, ids[1:])
    return {
        "model": trained.name,
        "threads": torch.get_num_threads(),
        "texts": dict.fromkeys(texts, windows * (WINDOW - 1)),
        **{
            name: {
                **sum(kind.losses.values(), Loss()).figures(),
                "bits": round(kind.bits, 3),
                "texts": {text: loss.figures() for text, loss in kind.losses.items()},
            }
            for name, kind in kinds.items()
        },
    }


def _kinds(model: Any) -> dict[str, _Kind]:
    return {
        "fp32": _Kind(model, 32),
        "bf16": _Kind(copy.deepcopy(model).bfloat16(), 16),
        "int4": _Kind(_with_layers(model, Int4Linear), 4 + 32 / GROUP),
        "int4_g64": _Kind(_with_layers(model, _over_whole_range), 4 + 32 / _COARSE),
        "nf4": _Kind(_with_layers(model, nf4_linear), 4 + 8 / _NF4_BLOCK + 32 / (_NF4_BLOCK * _NF4_SECOND_BLOCK)),
    }


def _with_layers(model: Any, make: Callable[[nn.Linear], nn.Module]) -> Any:
    """Return a copy of a model with other linear layers in its decoder; the embedding's weights are shared."""
    embedding = model.get_input_embeddings().weight
    changed = copy.deepcopy(model, {id(embedding): embedding})
    decoder = getattr(changed.model, "language_model", changed.model)
    for parent in list(decoder.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear) and can_be_int4(layer):
                setattr(parent, name, make(layer))
    return changed


def _over_whole_range(linear: nn.Linear) -> nn.Linear:
    """Round a layer's weights as before the ranges were fitted: groups of 64, dequantised to fp32."""
    weight = linear.weight
    if weight.shape[1] % _COARSE:
        return linear
    grouped = weight.view(len(weight), -1, _COARSE)
    low, high = (edge.unsqueeze(-1) for edge in grouped.aminmax(dim=-1))
    scale = ((high - low) / 15).clamp(min=1e-8).bfloat16().float()
    zero = (low + 8 * scale).bfloat16().float()
    rounded = ((grouped - zero) / scale).round().clamp(-8, 7) * scale + zero
    linear.weight = nn.Parameter(rounded.view_as(weight), requires_grad=False)
    return linear


def _windows(tokenizer: Any, name: str, text: str, count: int) -> Iterator[Tensor]:
    """Yield ids of ``count`` windows, each begun with the beginning-of-sequence token."""
    ids = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    inside = WINDOW - 1
    if len(ids) < count * inside:
        raise ValueError(
            f"The text {name!r} has {len(ids)} tokens, and {count * inside} are needed: ask for fewer."
        )
    for start in range(0, count * inside, inside):
        yield torch.tensor([tokenizer.bos_token_id, *ids[start : start + inside]])


def _log_probabilities(model: Any, ids: Tensor) -> Tensor:
    """Return the log-probabilities of each next token of a window, (tokens - 1, vocabulary)."""
    logits: Tensor = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
    return torch.log_softmax(logits.float(), dim=-1)
