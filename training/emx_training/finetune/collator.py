"""Batches of examples as a model takes them: pixels, token ids, and where the loss falls."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from emx_shared.imaging import BadImage, decode
from emx_training.data.tables import BadTable
from emx_training.finetune.examples import Example
from emx_training.losses import IGNORED
from emx_training.pretrain.tokenizer import PROMPT
from emx_worker.model.architectures import Architecture, Processor, prompt_ids


@dataclass(frozen=True)
class ExampleBatch:
    """Examples in the form that a model takes.

    Attributes:
        pixel_values: (batch, 3, size, size) float32.
        input_ids, token_type_ids, attention_mask: (batch, prompt + answer) int64, padded on the right.
        labels: (batch, answer) int64, ``IGNORED`` where no loss falls.
    """

    pixel_values: Tensor
    input_ids: Tensor
    token_type_ids: Tensor
    attention_mask: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> "ExampleBatch":
        """Return the batch on another device."""
        return ExampleBatch(*(value.to(device) for value in vars(self).values()))


class Collator:
    """Turns examples into batches for one model, with images as the worker decodes them."""

    def __init__(self, architecture: Architecture, processor: Processor) -> None:
        """Prepare for a model.

        Args:
            architecture: the model's family.
            processor: the model's; it must have ``<locNNNN>`` tokens if the examples have boxes.
        """
        self._architecture, self._processor = architecture, processor
        self._tokenizer = processor.tokenizer
        self._prompt: list[int] = prompt_ids(architecture, processor, PROMPT)[0].tolist()
        self._end = architecture.end(processor)

    def __call__(self, examples: Sequence[Example]) -> ExampleBatch:
        """Return the batch of these examples.

        Raises:
            BadTable: if an image is damaged.
        """
        answers = [self._answer(example) for example in examples]
        longest = max(len(ids) for ids, _ in answers)
        pad = self._tokenizer.pad_token_id
        ids = [[*self._prompt, *answer, *[pad] * (longest - len(answer))] for answer, _ in answers]
        mask = [[1] * (len(self._prompt) + len(a)) + [0] * (longest - len(a)) for a, _ in answers]
        labels = [[*kept, *[IGNORED] * (longest - len(kept))] for _, kept in answers]
        input_ids = torch.tensor(ids)
        pictures = [_opened(example.image) for example in examples]
        pixels = self._processor.image_processor(images=pictures, return_tensors="pt")["pixel_values"]
        return ExampleBatch(
            pixel_values=pixels,
            input_ids=input_ids,
            token_type_ids=self._architecture.token_types(self._processor, input_ids, len(self._prompt)),
            attention_mask=torch.tensor(mask),
            labels=torch.tensor(labels),
        )

    def _answer(self, example: Example) -> tuple[list[int], list[int]]:
        """Return an answer's ids and labels, with the token that ends it.

        The answer is one text for the tokenizer, as it is for the worker's. A token is trained if its first
        character is.
        """
        pieces = (*example.answer, (self._end, True))
        trained = [is_trained for text, is_trained in pieces for _ in text]
        written = self._tokenizer(
            "".join(text for text, _ in pieces), add_special_tokens=False, return_offsets_mapping=True
        )
        ids: list[int] = written["input_ids"]
        begins = (begin for begin, _ in written["offset_mapping"])
        return ids, [token if trained[at] else IGNORED for token, at in zip(ids, begins, strict=True)]


def _opened(path: Path) -> Image.Image:
    """Decode an image as the worker does."""
    try:
        return decode(path.read_bytes(), max_bytes=512 * 2**20).image.convert("RGB")
    except (OSError, BadImage) as error:
        raise BadTable(f"{path} can't be used ({error}).") from None
