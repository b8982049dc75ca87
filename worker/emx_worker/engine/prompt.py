"""What a study is asked, as the decoder sees it."""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from emx_worker.engine.constraint import Constraint
from emx_worker.model.architectures import prompt_ids
from emx_worker.model.loading import LoadedModel
from emx_worker.report_builder import Study

INDICATION_TOKENS = 160
"""Of a prompt, at most, for the clinical context."""

_NO_TEXT = re.compile(r"[^\w.,;:()/+%'-]+")
"""What an indication can do without: line breaks, and whatever a control token might be written with."""


def question(loaded: LoadedModel, study: Study) -> str:
    """The model's prompt, with the study's indication, as far as there is room, where the model takes one."""
    if not loaded.takes_indication:
        return loaded.prompt
    indication = plain(study.indication)
    while indication and _length(loaded, indication) > INDICATION_TOKENS:
        words = indication.split()
        indication = " ".join(words[: len(words) - max(len(words) // 8, 1)])
    return with_indication(loaded.prompt, indication)


def with_indication(prompt: str, indication: str | None) -> str:
    """A prompt that tells clinical context, if there is any."""
    words = plain(indication)
    return f"{prompt}\nIndication: {words}" if words else prompt


def plain(indication: str | None) -> str:
    """An indication in one line, and without what could be taken for more than words."""
    return " ".join(_NO_TEXT.sub(" ", indication or "").split())


def room_for_prompt(loaded: LoadedModel) -> int:
    """Tokens that the longest prompt may have."""
    plain = prompt_ids(loaded.architecture, loaded.processor, loaded.prompt).shape[1]
    return plain + (INDICATION_TOKENS if loaded.takes_indication else 0)


def _length(loaded: LoadedModel, indication: str) -> int:
    return len(loaded.processor.tokenizer(with_indication("", indication), add_special_tokens=False)["input_ids"])


@dataclass(frozen=True, eq=False)
class Prompt:
    """A question and the opening that every report has, with a place for the image.

    Attributes:
        embedded: (1, tokens, width).
        tokens: of the prompt, image tokens included and the opening not.
        prefix: tokens before the image; ``image_end``: those up to its last.
        full, sliding: what each token sees, bool (tokens, tokens), in layers that see all and in those that don't.
    """

    embedded: Tensor
    tokens: int
    prefix: int
    image_end: int
    full: Tensor
    sliding: Tensor

    @classmethod
    def of(cls, loaded: LoadedModel, question: str, window: int | None, dtype: torch.dtype) -> "Prompt":
        """``window``: tokens that a sliding layer sees; ``dtype``: that the decoder computes in."""
        asked = prompt_ids(loaded.architecture, loaded.processor, question)
        opening = Constraint(loaded.dialect, loaded.max_new_tokens, loaded.dialect.notation()).opening
        ids = torch.cat([asked, torch.tensor([opening], dtype=torch.long)], dim=1)
        image = (ids[0] == loaded.architecture.image_token(loaded.processor)).nonzero()[:, 0]
        types = loaded.architecture.token_types(loaded.processor, ids, prompt=asked.shape[1])
        full, sliding = loaded.architecture.visible(types[0], window)
        # An image token's id may lie beyond the vocabulary, and its embedding isn't used.
        known = ids.masked_fill(ids == ids[0, image[0]], 0)
        with torch.inference_mode():
            embedded = loaded.model.get_input_embeddings()(known.to(loaded.device)).to(dtype)
        return cls(embedded, asked.shape[1], int(image[0]), int(image[-1]) + 1, full, sliding)
