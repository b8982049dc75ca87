"""The model families that worker and training know, and all in which these differ for them.

Both have a SigLIP tower, a projector and a Gemma decoder under the same names, and one token for one image place.
"""

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
)

Config: TypeAlias = Gemma3Config | PaliGemmaConfig
Model: TypeAlias = Gemma3ForConditionalGeneration | PaliGemmaForConditionalGeneration
Processor: TypeAlias = Gemma3Processor | PaliGemmaProcessor


class Architecture(Protocol):
    """What is asked of a family.

    Attributes:
        config, model, processor: transformers' classes.
        sees_all: the decoder's ``attention_mask`` that hides nothing.
        first_position: of the prompt's first token.
    """

    config: Any
    model: Any
    processor: Any
    sees_all: Mapping[str, None] | None
    first_position: int

    def prompt(self, processor: Processor, question: str) -> str:
        """The text before the answer, with every image token written out."""

    def end(self, processor: Processor) -> str:
        """The token after the answer."""

    def token_types(self, processor: Processor, ids: Tensor, prompt: int) -> Tensor:
        """What the forward pass tells bidirectional tokens from causal ones by.

        Args:
            ids: (batch, tokens) int64: a prompt of ``prompt`` tokens, and perhaps an answer.

        Returns int64 of the same shape.
        """

    def image_token(self, processor: Processor) -> int:
        """The token that stands for each of an image's places."""

    def visible(self, types: Tensor, window: int | None) -> tuple[Tensor, Tensor]:
        """What each token of a prompt sees, in layers that see all, and in those with a sliding window.

        Args:
            types: (tokens,), as ``token_types`` gives them.
            window: tokens that a sliding layer sees, the token itself included.

        Returns two masks, bool (tokens, tokens), a row for each token that looks.
        """


class Gemma3:
    """Gemma 3 with images, such as MedGemma: a turn of a chat, in which the image's tokens see each other."""

    config, model, processor = Gemma3Config, Gemma3ForConditionalGeneration, Gemma3Processor
    sees_all: Mapping[str, None] | None = {"full_attention": None, "sliding_attention": None}
    first_position = 0

    def prompt(self, processor: Processor, question: str) -> str:
        content = [{"type": "image"}, {"type": "text", "text": question}]
        text: str = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        return text.replace(processor.boi_token, processor.full_image_sequence)

    def end(self, processor: Processor) -> str:
        return "<end_of_turn>"

    def token_types(self, processor: Processor, ids: Tensor, prompt: int) -> Tensor:
        return (ids == self.image_token(processor)).long()

    def image_token(self, processor: Processor) -> int:
        token: int = processor.tokenizer.image_token_id
        return token

    def visible(self, types: Tensor, window: int | None) -> tuple[Tensor, Tensor]:
        causal, near = _causal(len(types), window)
        within_image = (types == 1)[:, None] & (types == 1)[None]
        full = causal | within_image
        return full, full & near


class PaliGemma:
    """PaliGemma 1 and 2 (Beyer et al. 2024): image and question see each other as one prefix."""

    config, model, processor = PaliGemmaConfig, PaliGemmaForConditionalGeneration, PaliGemmaProcessor
    sees_all: Mapping[str, None] | None = None
    first_position = 1

    def prompt(self, processor: Processor, question: str) -> str:
        image = processor.image_token * processor.image_seq_length
        return f"{image}{processor.tokenizer.bos_token}{question}\n"

    def end(self, processor: Processor) -> str:
        eos: str = processor.tokenizer.eos_token
        return eos

    def token_types(self, processor: Processor, ids: Tensor, prompt: int) -> Tensor:
        types = torch.zeros_like(ids)
        types[:, prompt:] = 1
        return types

    def image_token(self, processor: Processor) -> int:
        token: int = processor.image_token_id
        return token

    def visible(self, types: Tensor, window: int | None) -> tuple[Tensor, Tensor]:
        causal, near = _causal(len(types), window)
        within_prompt = (types == 0)[:, None] & (types == 0)[None]
        return causal | within_prompt, (causal & near) | within_prompt


def _causal(tokens: int, window: int | None) -> tuple[Tensor, Tensor]:
    """Whether a token isn't later than the one that looks, and whether it is within its window; (looks, seen)."""
    at = torch.arange(tokens)
    behind = at[:, None] - at[None]
    return behind >= 0, behind < (tokens if window is None else window)


ARCHITECTURES: tuple[Architecture, ...] = (Gemma3(), PaliGemma())


def architecture_of(config: Config) -> Architecture:
    """Raises KeyError for a configuration of any other family."""
    return {family.config: family for family in ARCHITECTURES}[type(config)]


def image_patches(config: Config) -> int:
    """Patches that the vision tower makes of an image."""
    side: int = config.vision_config.image_size // config.vision_config.patch_size
    return side**2


def prompt_ids(architecture: Architecture, processor: Processor, question: str) -> Tensor:
    """The tokens before the answer, (1, tokens) int64."""
    text = architecture.prompt(processor, question)
    ids: Tensor = processor.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    return ids
