"""The model families that worker and training support, and everything in which they differ.

All have a SigLIP tower, a projector and a Gemma decoder under the same names, and one token for each image place.
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
    """What worker and training must know of a model family.

    Attributes:
        config, model, processor: transformers' classes.
        sees_all: the decoder's ``attention_mask`` that hides nothing.
        first_position: position id of the prompt's first token.
    """

    config: Any
    model: Any
    processor: Any
    sees_all: Mapping[str, None] | None
    first_position: int

    def prompt(self, processor: Processor, question: str) -> str:
        """Return the text before the answer, with every image token written out."""

    def end(self, processor: Processor) -> str:
        """Return the token that ends the answer."""

    def token_types(self, processor: Processor, ids: Tensor, prompt: int) -> Tensor:
        """Return the types by which the forward pass tells bidirectional tokens from causal ones.

        Args:
            processor: of the model.
            ids: (batch, tokens) int64: a prompt, and perhaps an answer.
            prompt: length of the prompt in tokens.

        Returns:
            int64 of the same shape as ``ids``.
        """

    def image_token(self, processor: Processor) -> int:
        """Return the id of the token that stands for each of an image's places."""

    def visible(self, types: Tensor, window: int | None) -> tuple[Tensor, Tensor]:
        """Return which tokens of a prompt each token sees.

        Args:
            types: (tokens,), from ``token_types``.
            window: tokens that a sliding layer sees, the token itself included; None if there are no such layers.

        Returns:
            Two masks, bool (tokens, tokens) with a row for each token that looks: of layers with full attention,
            and of layers with a sliding window.
        """


class Gemma3:
    """Gemma 3 with images, such as MedGemma: a turn of a chat, in which the image's tokens see each other."""

    config, model, processor = Gemma3Config, Gemma3ForConditionalGeneration, Gemma3Processor
    sees_all: Mapping[str, None] | None = {"full_attention": None, "sliding_attention": None}
    first_position = 0

    def prompt(self, processor: Processor, question: str) -> str:
        """Return one turn of a chat, up to where the model's answer begins."""
        content = [{"type": "image"}, {"type": "text", "text": question}]
        text: str = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        return text.replace(processor.boi_token, processor.full_image_sequence)

    def end(self, processor: Processor) -> str:
        """Return the token that ends a turn."""
        return "<end_of_turn>"

    def token_types(self, processor: Processor, ids: Tensor, prompt: int) -> Tensor:
        """Return 1 for the image's tokens, 0 for all others."""
        return (ids == self.image_token(processor)).long()

    def image_token(self, processor: Processor) -> int:
        """Return the id of the token that stands for each of an image's places."""
        token: int = processor.tokenizer.image_token_id
        return token

    def visible(self, types: Tensor, window: int | None) -> tuple[Tensor, Tensor]:
        """Return the masks: causal, but the image's tokens see each other."""
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
        """Return the image tokens and the question on one line, as PaliGemma was trained."""
        image = processor.image_token * processor.image_seq_length
        return f"{image}{processor.tokenizer.bos_token}{question}\n"

    def end(self, processor: Processor) -> str:
        """Return the token that ends a text."""
        eos: str = processor.tokenizer.eos_token
        return eos

    def token_types(self, processor: Processor, ids: Tensor, prompt: int) -> Tensor:
        """Return 0 for the prompt's tokens, 1 for the answer's."""
        types = torch.zeros_like(ids)
        types[:, prompt:] = 1
        return types

    def image_token(self, processor: Processor) -> int:
        """Return the id of the token that stands for each of an image's places."""
        token: int = processor.image_token_id
        return token

    def visible(self, types: Tensor, window: int | None) -> tuple[Tensor, Tensor]:
        """Return the masks: causal, but the prompt's tokens see each other."""
        causal, near = _causal(len(types), window)
        within_prompt = (types == 0)[:, None] & (types == 0)[None]
        return causal | within_prompt, (causal & near) | within_prompt


def _causal(tokens: int, window: int | None) -> tuple[Tensor, Tensor]:
    """Return whether a token is not later than the one that looks, and whether it is in its window.

    Both are bool (tokens that look, tokens seen).
    """
    at = torch.arange(tokens)
    behind = at[:, None] - at[None]
    return behind >= 0, behind < (tokens if window is None else window)


ARCHITECTURES: tuple[Architecture, ...] = (Gemma3(), PaliGemma())


def architecture_of(config: Config) -> Architecture:
    """Return the family of a configuration. Raises KeyError for any other family."""
    return {family.config: family for family in ARCHITECTURES}[type(config)]


def image_patches(config: Config) -> int:
    """Return how many patches the vision tower makes of an image."""
    side: int = config.vision_config.image_size // config.vision_config.patch_size
    return side**2


def prompt_ids(architecture: Architecture, processor: Processor, question: str) -> Tensor:
    """Return the tokens before the answer, (1, tokens) int64."""
    text = architecture.prompt(processor, question)
    ids: Tensor = processor.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    return ids
