"""Batches of phantoms that the base is pre-trained on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor
from transformers import Gemma3Processor

from emx_shared.grammar import LOC_BINS, LocatedFinding
from emx_training.losses import IGNORED
from emx_training.phantoms import PHANTOM_TERMS
from emx_training.pretrain.dense_targets import DenseTargets
from emx_training.pretrain.phantom_cache import MASK_CELLS, CachedPhantoms
from emx_training.pretrain.tokenizer import PROMPT
from emx_worker.model.architectures import Gemma3, prompt_ids

_SORTED_BATCHES = 16
"""Batches whose phantoms are drawn together and sorted by answer length, to pad little."""

_SMALL = [rank for rank, (label, _) in enumerate(PHANTOM_TERMS) if label in ("atelectasis", "nodule", "mass")]

AnswerWriter = Callable[[Sequence[LocatedFinding]], str]
"""Returns the text that a model should write for an image with these findings."""


@dataclass(frozen=True)
class AnswerTokens:
    """Answers as token ids.

    Attributes:
        input_ids: (batch, prompt + answer) int64, padded on the right.
        token_type_ids: (batch, prompt + answer) int64, 1 for image tokens.
        labels: (batch, answer) int64, ``IGNORED`` where the answer is padded.
    """

    input_ids: Tensor
    token_type_ids: Tensor
    labels: Tensor


@dataclass(frozen=True)
class PhantomBatch:
    """Phantoms with their targets.

    Attributes:
        pixel_values: (batch, 3, size, size) float32, -1 to 1.
        dense: the vision tower's targets.
        answers: the decoder's targets; None in a stage without text.
    """

    pixel_values: Tensor
    dense: DenseTargets
    answers: AnswerTokens | None


class PhantomBatches:
    """Makes batches of cached phantoms.

    Attributes:
        phantoms: the phantoms.
        answers: the token ids of each phantom's answer, (tokens,) int64; empty without text.
    """

    def __init__(
        self, phantoms: CachedPhantoms, processor: Gemma3Processor, write: AnswerWriter | None = None
    ) -> None:
        """Tokenize the answers.

        Args:
            phantoms: the phantoms to batch.
            processor: the model's.
            write: writes each phantom's answer; None for batches without text.
        """
        tokenizer = processor.tokenizer
        self.phantoms = phantoms
        self._prompt = prompt_ids(Gemma3(), processor, PROMPT)[0].numpy()
        self._image_token, self._pad = tokenizer.image_token_id, tokenizer.pad_token_id
        self.answers: list[NDArray[np.int64]] = []
        if write:
            end = Gemma3().end(processor)
            texts = [write(phantoms.findings(index)) + end for index in range(len(phantoms))]
            self.answers = [np.array(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]

    def stream(self, size: int, seed: int, start: int = 0, rare: float = 1.0) -> Iterator[PhantomBatch]:
        """Yield batches without end, pass after pass, each pass in its own order and with varied exposure.

        Batch ``n`` depends only on ``seed`` and ``n``: a resumed run sees what it would have seen.

        Args:
            size: phantoms in a batch.
            seed: of order and exposure.
            start: number of the first batch.
            rare: how many times as often a phantom with a small finding is seen as another.
        """
        each = max(1, len(self.phantoms) // size)
        at = start
        while True:
            order = self._order(size, np.random.default_rng([seed, at // each]), rare)
            for number in range(at % each, each):
                random = np.random.default_rng([seed, at // each, number])
                yield self.batch(order[number * size : (number + 1) * size], random)
                at += 1

    def _order(self, size: int, random: np.random.Generator, rare: float) -> NDArray[np.int64]:
        """Return the indices of one pass, so that phantoms of one batch have answers of similar length."""
        count = len(self.phantoms)
        order = random.permutation(count)
        if rare != 1:
            weights = np.where(self._shows_small(), rare, 1.0)
            order = random.choice(count, count, p=weights / weights.sum())
        if not self.answers:
            return order
        span = size * _SORTED_BATCHES
        groups = [
            np.array(sorted(order[at : at + span], key=lambda index: len(self.answers[index])))
            for at in range(0, len(order), span)
        ]
        batches = [group[at : at + size] for group in groups for at in range(0, len(group) - size + 1, size)]
        if not batches:
            return order
        return np.concatenate([batches[number] for number in random.permutation(len(batches))])

    def _shows_small(self) -> NDArray[np.bool_]:
        """Return for each phantom whether it shows a finding of a small kind."""
        shown = np.concatenate([[0], np.cumsum(np.isin(self.phantoms.terms, _SMALL))])
        return np.diff(shown[self.phantoms.first]) > 0

    def batch(self, indices: NDArray[np.int64], random: np.random.Generator | None = None) -> PhantomBatch:
        """Return one batch.

        Nothing is moved or mirrored: each phantom has its own geometry already, and its sides must stay true.

        Args:
            indices: of the phantoms, (batch,) int64.
            random: varies the exposure; None to leave the images unchanged.
        """
        images: NDArray[Any] = self.phantoms.images[indices].astype(np.float32) / 255
        if random:
            images = _vary_exposure(images, random)
        pixels = torch.from_numpy(images * 2 - 1)[:, None].expand(-1, 3, -1, -1)
        return PhantomBatch(pixels, self._dense(indices), self._answer_tokens(indices) if self.answers else None)

    def _dense(self, indices: NDArray[np.int64]) -> DenseTargets:
        masks = np.zeros((len(indices), len(PHANTOM_TERMS), MASK_CELLS, MASK_CELLS), np.float32)
        boxes = np.zeros((len(indices), len(PHANTOM_TERMS), 4), np.float32)
        for row, index in enumerate(indices):
            located = slice(self.phantoms.first[index], self.phantoms.first[index + 1])
            terms = self.phantoms.terms[located]
            masks[row, terms] = self.phantoms.masks[located].astype(np.float32) / 255
            boxes[row, terms] = self.phantoms.boxes[located].astype(np.float32) / (LOC_BINS - 1)
        return DenseTargets(torch.from_numpy(masks), torch.from_numpy(boxes))

    def _answer_tokens(self, indices: NDArray[np.int64]) -> AnswerTokens:
        answers = [self.answers[index] for index in indices]
        labels = np.full((len(answers), max(map(len, answers))), IGNORED, np.int64)
        for row, answer in zip(labels, answers, strict=True):
            row[: len(answer)] = answer
        prompts = np.broadcast_to(self._prompt, (len(answers), len(self._prompt)))
        input_ids = np.concatenate([prompts, np.where(labels == IGNORED, self._pad, labels)], axis=1)
        is_image = (input_ids == self._image_token).astype(np.int64)
        return AnswerTokens(torch.from_numpy(input_ids), torch.from_numpy(is_image), torch.from_numpy(labels))


def _vary_exposure(images: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """Simulate another machine for each image: gamma, gain, offset, shading, sharpness and grain.

    The range is wider than the training site's own, so that images of other sites are less unusual.
    """
    count, size = len(images), images.shape[-1]

    def draw(low: float, high: float) -> NDArray[np.float32]:
        return random.uniform(low, high, (count, 1, 1)).astype(np.float32)

    exposed = images ** np.exp(draw(-0.45, 0.45))
    slope = np.linspace(-1, 1, size, dtype=np.float32)
    shading = draw(-0.10, 0.10) * slope[None, None, :] + draw(-0.10, 0.10) * slope[None, :, None]
    exposed = exposed * (draw(0.75, 1.12) + shading * (exposed > 0)) + draw(-0.06, 0.10)
    for image, kind in zip(exposed, random.uniform(size=count), strict=True):
        if kind < 0.25:
            image[:] = gaussian_filter(image, random.uniform(0.3, 0.9), truncate=3.0)
        elif kind < 0.5:
            smooth = gaussian_filter(image, random.uniform(0.8, 1.6), truncate=2.5)
            image += random.uniform(0.2, 1.0) * (image - smooth)
    # Squared: most images get little grain, a few get much.
    grain = 0.05 * np.square(draw(0, 1))
    exposed = exposed + grain * random.standard_normal(images.shape, dtype=np.float32)
    varied: NDArray[np.float32] = np.clip(exposed, 0, 1).astype(np.float32)
    return varied
