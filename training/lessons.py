"""Batches for training: phantoms with their reports as token ids, and the loss on them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Gemma3ForConditionalGeneration, Gemma3Processor

from shared.grammar import LOC_BINS
from training.phantom_cache import CachedPhantoms
from training.phantoms import PHANTOM_TERMS
from training.tokenizer import FIRST_LOC, PROMPT

_IGNORED = -100
_GROUP = 16
"""Batches that are drawn together and sorted by length, so that little is padded."""

LOCATION_WEIGHT = 0.4
CELL_WEIGHT = 1.0
"""Weights of the box tokens and of the coarse masks beside the words' weight of 1."""


@dataclass(frozen=True)
class Batch:
    """Phantoms to learn from.

    Attributes:
        pixel_values: (batch, 3, size, size) float32, -1 to 1.
        input_ids: (batch, prompt + answer) int64, padded on the right.
        token_type_ids: the same shape, 1 where an image token stands.
        labels: (batch, answer) int64, the answer, with -100 where it is padded.
        cells: (batch, terms, cells, cells) float32, share of each patch that each term covers.
    """

    pixel_values: Tensor
    input_ids: Tensor
    token_type_ids: Tensor
    labels: Tensor
    cells: Tensor


@dataclass(frozen=True)
class Losses:
    """Means over tokens (words, locations) and over cells, in nats."""

    words: Tensor
    locations: Tensor
    cells: Tensor

    @property
    def total(self) -> Tensor:
        return self.words + LOCATION_WEIGHT * self.locations + CELL_WEIGHT * self.cells


class Lessons:
    """Phantoms, tokenised once."""

    def __init__(self, phantoms: CachedPhantoms, processor: Gemma3Processor) -> None:
        tokenizer = processor.tokenizer
        self.phantoms = phantoms
        self.prompt = prompt_ids(processor)
        self.image_token = tokenizer.image_token_id
        answers = tokenizer([text + "<end_of_turn>" for text in phantoms.texts], add_special_tokens=False)
        self.answers = [np.array(ids, np.int64) for ids in answers["input_ids"]]
        self.pad = tokenizer.pad_token_id

    def batches(self, size: int, random: np.random.Generator) -> Iterator[Batch]:
        """One pass in random order, with exposure and noise varied."""
        order = random.permutation(len(self.phantoms))
        for at in range(0, len(order), size * _GROUP):
            group = sorted(order[at : at + size * _GROUP], key=lambda index: len(self.answers[index]))
            starts = range(0, len(group) - size + 1, size) or range(1)
            for start in random.permutation(np.array(starts)):
                yield self.batch(np.array(group[start : start + size]), random)

    def batch(self, indices: NDArray[np.int64], random: np.random.Generator | None = None) -> Batch:
        """These phantoms; with ``random``, under another exposure.

        Nothing is moved or mirrored: each phantom has its own geometry already, and the side must stay true.
        """
        images: NDArray[Any] = self.phantoms.images[indices].astype(np.float32) / 255
        if random:
            images = _expose(images, random)
        answers = [self.answers[index] for index in indices]
        length = max(map(len, answers))
        labels = np.full((len(answers), length), _IGNORED, np.int64)
        for row, answer in zip(labels, answers, strict=True):
            row[: len(answer)] = answer
        prompts = np.broadcast_to(self.prompt, (len(answers), len(self.prompt)))
        input_ids = np.concatenate([prompts, np.where(labels == _IGNORED, self.pad, labels)], axis=1)
        return Batch(
            torch.from_numpy(images * 2 - 1)[:, None].expand(-1, 3, -1, -1),
            torch.from_numpy(input_ids),
            torch.from_numpy((input_ids == self.image_token).astype(np.int64)),
            torch.from_numpy(labels),
            torch.from_numpy(self.phantoms.cells[indices].astype(np.float32) / 255),
        )


class CellHead(nn.Linear):
    """Reads from the vision tower which finding covers a patch. Helps the tower to learn; then thrown away."""

    def __init__(self, width: int) -> None:
        super().__init__(width, len(PHANTOM_TERMS))
        nn.init.constant_(self.bias, -4.0)  # most cells hold nothing


def prompt_ids(processor: Gemma3Processor) -> NDArray[np.int64]:
    """The prompt as the model sees it, up to where the answer begins."""
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}],
        add_generation_prompt=True,
    )
    text = text.replace(processor.boi_token, processor.full_image_sequence)
    return np.array(processor.tokenizer(text, add_special_tokens=False)["input_ids"], np.int64)


def losses(
    model: Gemma3ForConditionalGeneration, head: CellHead, batch: Batch, softness: float
) -> tuple[Losses, Tensor]:
    """The losses, and the logits (batch, answer, vocabulary) that they were taken from.

    Args:
        softness: standard deviation, in bins, of the Gaussian that a true location is spread into, so that a
            near miss costs less than a far one.
    """
    seen = model.model.get_image_features(batch.pixel_values, return_dict=True)
    logits = model(
        input_ids=batch.input_ids,
        token_type_ids=batch.token_type_ids,
        mm_encoder_outputs={"image": seen},
        logits_to_keep=batch.labels.shape[1] + 1,
        use_cache=False,
    ).logits[:, :-1]
    is_location = batch.labels >= FIRST_LOC
    is_word = (batch.labels >= 0) & ~is_location
    words = F.cross_entropy(logits[is_word], batch.labels[is_word])
    if is_location.any():
        locations = soft_cross_entropy(logits[is_location], batch.labels[is_location] - FIRST_LOC, softness)
    else:
        locations = logits.new_zeros(())
    guessed = head(seen.last_hidden_state).transpose(1, 2)
    cells = F.binary_cross_entropy_with_logits(guessed, batch.cells.flatten(2), pos_weight=guessed.new_tensor(4.0))
    return Losses(words, locations, cells), logits


def soft_cross_entropy(logits: Tensor, bins: Tensor, softness: float, first_location: int = FIRST_LOC) -> Tensor:
    """Cross-entropy to a Gaussian about each true bin, less the Gaussian's own entropy: 0 is perfect.

    Args:
        logits: (locations, vocabulary), over the whole vocabulary.
        bins: (locations,), 0 to 1023.
        softness: the Gaussian's standard deviation, in bins.
        first_location: id of ``<loc0000>``.
    """
    offset = torch.arange(LOC_BINS, device=bins.device)[None, :] - bins[:, None]
    target = F.softmax(-0.5 * (offset / softness) ** 2, dim=1)
    entropy = -(target * target.clamp_min(1e-12).log()).sum(dim=1)
    guessed = F.log_softmax(logits, dim=1)[:, first_location : first_location + LOC_BINS]
    return (-(target * guessed).sum(dim=1) - entropy).mean()


def _expose(images: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """Another gamma, gain, offset and grain for each image."""
    gamma, gain, offset, grain = (
        random.uniform(low, high, (len(images), 1, 1)).astype(np.float32)
        for low, high in ((0.85, 1.18), (0.88, 1.06), (-0.03, 0.05), (0.0, 0.015))
    )
    noise = random.standard_normal(images.shape, dtype=np.float32)
    exposed: NDArray[np.float32] = np.clip(images**gamma * gain + offset + grain * noise, 0, 1)
    return exposed
