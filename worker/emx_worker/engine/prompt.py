"""The prompt: what the model is asked about an image, and how the decoder sees it."""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from emx_worker.engine.constraint import ReportConstraint
from emx_worker.image_task import ImageTask
from emx_worker.model.architectures import prompt_ids
from emx_worker.model.loading import LoadedModel

INDICATION_TOKENS = 160
"""Largest number of tokens in a prompt for the clinical context."""

_NO_TEXT = re.compile(r"[^\w.,;:()/+%'-]+")
"""Characters that an indication doesn't need: line breaks, and any that a control token could be written with."""


def question(loaded: LoadedModel, task: ImageTask) -> str:
    """Return the model's question, with as much of the indication as fits if the model takes one."""
    if not loaded.takes_indication:
        return loaded.prompt
    indication = plain(task.indication)
    while indication and _length(loaded, indication) > INDICATION_TOKENS:
        words = indication.split()
        indication = " ".join(words[: len(words) - max(len(words) // 8, 1)])
    return with_indication(loaded.prompt, indication)


def with_indication(prompt: str, indication: str | None) -> str:
    """Append the clinical context to a question, if there is any."""
    words = plain(indication)
    return f"{prompt}\nIndication: {words}" if words else prompt


def plain(indication: str | None) -> str:
    """Reduce an indication to one line of words, without anything that could be read as a control token."""
    return " ".join(_NO_TEXT.sub(" ", indication or "").split())


def room_for_prompt(loaded: LoadedModel) -> int:
    """Return the length of the longest possible prompt, in tokens."""
    plain = prompt_ids(loaded.architecture, loaded.processor, loaded.prompt).shape[1]
    return plain + (INDICATION_TOKENS if loaded.takes_indication else 0)


def _length(loaded: LoadedModel, indication: str) -> int:
    return len(loaded.processor.tokenizer(with_indication("", indication), add_special_tokens=False)["input_ids"])


@dataclass(frozen=True, eq=False)
class EmbeddedPrompt:
    """A question, and the opening that every report has, with room for the image's features.

    Attributes:
        embedded: (1, tokens, width).
        tokens: length of the prompt, with the image's tokens and without the opening.
        prefix: number of tokens before the image.
        image_end: number of tokens up to and including the image's last.
        full: which tokens each token sees in layers with full attention, bool (tokens, tokens).
        sliding: the same in layers with a sliding window.
    """

    embedded: Tensor
    tokens: int
    prefix: int
    image_end: int
    full: Tensor
    sliding: Tensor

    @classmethod
    def of(cls, loaded: LoadedModel, question: str, window: int | None, dtype: torch.dtype) -> "EmbeddedPrompt":
        """Embed a question.

        Args:
            loaded: the model.
            question: may include an indication.
            window: tokens that a sliding layer sees; None if the decoder has no such layers.
            dtype: that the decoder computes in.
        """
        asked = prompt_ids(loaded.architecture, loaded.processor, question)
        decoding = loaded.box_decoding
        opening = ReportConstraint(decoding, loaded.max_new_tokens, decoding.notation()).opening
        ids = torch.cat([asked, torch.tensor([opening], dtype=torch.long)], dim=1)
        image = (ids[0] == loaded.architecture.image_token(loaded.processor)).nonzero()[:, 0]
        types = loaded.architecture.token_types(loaded.processor, ids, prompt=asked.shape[1])
        full, sliding = loaded.architecture.visible(types[0], window)
        # An image token's id may be outside the vocabulary, and its embedding isn't used.
        known = ids.masked_fill(ids == ids[0, image[0]], 0)
        with torch.inference_mode():
            embedded = loaded.model.get_input_embeddings()(known.to(loaded.device)).to(dtype)
        return cls(embedded, asked.shape[1], int(image[0]), int(image[-1]) + 1, full, sliding)
