"""How a model writes boxes, and the grammar that it is held to."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer
from PIL import Image
from torch import Tensor

from emx_shared.contracts.findings import TERMS
from emx_shared.grammar import LOC, LOC_BINS, Box2dNotation, Frame, Notation
from emx_shared.grammar.loc import allowed_bins, box_so_far


class UnknownDialect(ValueError):
    """The tokenizer doesn't know the dialect."""


class Dialect(ABC):
    """What the engine asks of a way to write boxes. It serves all studies, and holds no state of theirs.

    Attributes:
        name: in manifests and reports.
        question: that a model is asked which wasn't trained on another.
        eos: the tokens that end a report.
        vocabulary: the width of the model's logits, which may exceed the tokenizer's vocabulary.
    """

    name: ClassVar[str]
    question: ClassVar[str]

    def __init__(self, tokenizer: Any, eos: frozenset[int], vocabulary: int) -> None:
        """Compile the grammar for a fast Hugging Face tokenizer. Raises UnknownDialect."""
        self.eos, self.vocabulary = eos, vocabulary
        if len(tokenizer) > vocabulary:
            raise UnknownDialect(f"the tokenizer has {len(tokenizer)} tokens, the model only {vocabulary}")
        self._tokenizer = from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=sorted(eos))
        self._fresh = LLMatcher(self._tokenizer, self._lark(tokenizer))
        if self._fresh.is_error():
            raise UnknownDialect(f"the report grammar can't be compiled: {self._fresh.get_error()}")

    @abstractmethod
    def _lark(self, tokenizer: Any) -> str:
        """The grammar, for decoding. Raises UnknownDialect."""

    @classmethod
    @abstractmethod
    def notation(cls, width: int = 1, height: int = 1) -> Notation:
        """How the report of an image of this size is written."""

    @classmethod
    def view(cls, image: Image.Image) -> Image.Image:
        """The image as the model's processor is to get it: RGB."""
        return image.convert("RGB")

    @abstractmethod
    def restrict(self, allowed: Tensor, text: str, notation: Notation) -> None:
        """Take the tokens that can't go on in a box out of a mask (bool, (vocabulary,)), in place.

        ``text`` is what was written of the report, in ``notation``.
        """

    def bin(self, token: int) -> int | None:
        """The location bin that a token stands for, if it is a location."""
        return None

    def matcher(self) -> LLMatcher:
        """A grammar matcher at the start of a report."""
        return self._fresh.deep_copy()

    def text(self, token: int) -> str:
        """What a token adds to a report's text."""
        # The grammar is ASCII, so a token never holds a part of a character.
        return self._tokenizer.decode_bytes([token]).decode("ascii")

    def encode(self, text: str) -> list[int]:
        """The tokens of a piece of report text."""
        return list(self._tokenizer.tokenize_str(text, parse_special=True))


def first_location(tokenizer: Any) -> int | None:
    """Id of ``<loc0000>``, where all 1,024 location tokens follow each other."""
    ids = tokenizer.convert_tokens_to_ids([f"<loc{number:04d}>" for number in range(LOC_BINS)])
    # A tokenizer answers with None, or with its unknown token, for what it doesn't know.
    return ids[0] if ids[0] is not None and ids == list(range(ids[0], ids[0] + LOC_BINS)) else None


class LocDialect(Dialect):
    """``<locNNNN>`` tokens with consecutive ids, in PaliGemma's order ymin xmin ymax xmax.

    The image is stretched to the model's square, so that bins are fractions of its own height and width.
    """

    name = "loc"
    question = "Report this chest radiograph."

    def _lark(self, tokenizer: Any) -> str:
        first = first_location(tokenizer)
        if first is None:
            raise UnknownDialect("the tokenizer has no 1,024 consecutive location tokens")
        self.first = first
        return LOC.lark_of_tokens(first)

    @classmethod
    def notation(cls, width: int = 1, height: int = 1) -> Notation:
        return LOC

    def restrict(self, allowed: Tensor, text: str, notation: Notation) -> None:
        box = box_so_far(text)
        bins = allowed_bins(box if len(box) < 4 else [])
        allowed[self.first : self.first + bins.start] = False
        allowed[self.first + bins.stop : self.first + LOC_BINS] = False

    def bin(self, token: int) -> int | None:
        number = token - self.first
        return number if 0 <= number < LOC_BINS else None

    def text(self, token: int) -> str:
        number = self.bin(token)
        return super().text(token) if number is None else f"<loc{number:04d}>"


class Box2dDialect(Dialect):
    """JSON with ``box_2d`` in 0 to 1000, ymin xmin ymax xmax, as Gemini and MedGemma 1.5 write boxes.

    They were trained on images padded to a square, and are given such; no box lies on the padding alone.
    """

    name = "box_2d"
    question = (
        "Report this chest radiograph in three lines. The first begins with FINDINGS: and describes in sentences "
        "what is seen. The second begins with LOCATIONS: and is a JSON list with an object for each abnormality, "
        'such as [{"box_2d": [250, 612, 340, 709], "label": "mass left"}]; box_2d is [y0, x0, y1, x1] with '
        "y0 < y1 and x0 < x1, from 0 at the image's upper left corner to 1000 at its lower right one; label is "
        f"one of: {', '.join(TERMS)}; left and right are the patient's sides; a normal image has []. "
        "The third line begins with IMPRESSION: and sums up."
    )

    def _lark(self, tokenizer: Any) -> str:
        return Box2dNotation().lark

    @classmethod
    def notation(cls, width: int = 1, height: int = 1) -> Notation:
        return Box2dNotation(Frame.padded(width, height))

    def restrict(self, allowed: Tensor, text: str, notation: Notation) -> None:
        assert isinstance(notation, Box2dNotation)
        if notation.in_box(text):
            for token in allowed.nonzero()[:, 0].tolist():
                allowed[token] = notation.may_go_on(text, self.text(token))

    @classmethod
    def view(cls, image: Image.Image) -> Image.Image:
        side = max(image.size)
        square = Image.new("RGB", (side, side))
        square.paste(image.convert("RGB"), ((side - image.width) // 2, (side - image.height) // 2))
        return square


DIALECTS: tuple[type[Dialect], ...] = (LocDialect, Box2dDialect)


def allowed_tokens(matcher: LLMatcher, vocabulary: int) -> Tensor:
    """The tokens that a matcher accepts next: bool, (vocabulary,), on the CPU.

    llguidance's own torch kernel is avoided: it needs ``torch.compile``, hence a C++ compiler on each worker.
    """
    packed = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
    return torch.from_numpy(np.unpackbits(packed, count=vocabulary, bitorder="little").view(np.bool_))
