"""How a model writes boxes, and the grammar that it is held to."""

from typing import Any, Protocol

import numpy as np
import torch
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer
from torch import Tensor

from shared.grammar import LOC_BINS, allowed_bins, grammar


class UnknownDialect(ValueError):
    """The tokenizer doesn't know the dialect."""


class Dialect(Protocol):
    """What the engine asks of a way to write boxes. It serves all studies, and holds no state of theirs."""

    name: str
    eos: frozenset[int]
    vocabulary: int

    def matcher(self) -> LLMatcher:
        """A grammar matcher at the start of a report."""

    def restrict(self, allowed: Tensor, box_so_far: list[int]) -> None:
        """Take the locations that can't follow in a box out of a mask (bool, (vocabulary,)), in place."""

    def bin(self, token: int) -> int | None:
        """The location bin that a token stands for, if it is a location."""

    def text(self, token: int) -> str:
        """What a token adds to a report's text."""

    def encode(self, text: str) -> list[int]:
        """The tokens of a piece of report text."""


def first_location(tokenizer: Any) -> int | None:
    """Id of ``<loc0000>``, where all 1,024 location tokens follow each other."""
    ids = tokenizer.convert_tokens_to_ids([f"<loc{number:04d}>" for number in range(LOC_BINS)])
    # A tokenizer answers with None, or with its unknown token, for what it doesn't know.
    return ids[0] if ids[0] is not None and ids == list(range(ids[0], ids[0] + LOC_BINS)) else None


class LocDialect:
    """``<locNNNN>`` tokens with consecutive ids, in PaliGemma's order ymin xmin ymax xmax."""

    name = "loc"

    def __init__(self, tokenizer: Any, eos: frozenset[int], vocabulary: int) -> None:
        """Compile the grammar for a fast Hugging Face tokenizer.

        Parameters:
            eos: the tokens that end a report.
            vocabulary: the width of the model's logits, which may exceed the tokenizer's vocabulary.

        Raises UnknownDialect if the location tokens are missing, not consecutive, or more than the model has.
        """
        self.eos, self.vocabulary = eos, vocabulary
        first = first_location(tokenizer)
        if first is None:
            raise UnknownDialect("the tokenizer has no 1,024 consecutive location tokens")
        self.first = first
        if len(tokenizer) > vocabulary:
            raise UnknownDialect(f"the tokenizer has {len(tokenizer)} tokens, the model only {vocabulary}")
        self._tokenizer = from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=sorted(eos))
        lark = grammar(loc=f"<[{self.first}-{self.first + LOC_BINS - 1}]>")
        self._fresh = LLMatcher(self._tokenizer, lark)
        if self._fresh.is_error():
            raise UnknownDialect(f"the report grammar can't be compiled: {self._fresh.get_error()}")

    def matcher(self) -> LLMatcher:
        return self._fresh.deep_copy()

    def restrict(self, allowed: Tensor, box_so_far: list[int]) -> None:
        bins = allowed_bins(box_so_far)
        allowed[self.first : self.first + bins.start] = False
        allowed[self.first + bins.stop : self.first + LOC_BINS] = False

    def bin(self, token: int) -> int | None:
        number = token - self.first
        return number if 0 <= number < LOC_BINS else None

    def text(self, token: int) -> str:
        number = self.bin(token)
        # The grammar is ASCII, so a token never holds a part of a character.
        return self._tokenizer.decode_bytes([token]).decode("ascii") if number is None else f"<loc{number:04d}>"

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.tokenize_str(text, parse_special=True))


def allowed_tokens(matcher: LLMatcher, vocabulary: int) -> Tensor:
    """The tokens that a matcher accepts next: bool, (vocabulary,), on the CPU.

    llguidance's own torch kernel is avoided: it needs ``torch.compile``, hence a C++ compiler on each worker.
    """
    packed = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
    return torch.from_numpy(np.unpackbits(packed, count=vocabulary, bitorder="little").view(np.bool_))
