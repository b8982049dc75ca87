"""How a model writes boxes in tokens, and the grammar that it is held to."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer
from PIL import Image
from torch import Tensor

from emx_shared.contracts.findings import TERMS
from emx_shared.grammar import LOC, LOC_BINS, Box2dNotation, BoxNotation, ImageFrame
from emx_shared.grammar.loc import allowed_bins, box_so_far


class UnsuitableTokenizer(ValueError):
    """The tokenizer can't write boxes in this way."""


class BoxDecoding(ABC):
    """A way to write boxes, for one tokenizer. It serves all images and holds no state of any.

    Attributes:
        name: the ``dialect`` in ``emx.json`` and in reports.
        question: for a model that was not trained on another.
        eos: the tokens that end a report.
        vocabulary: the width of the model's logits, which may exceed the tokenizer's vocabulary.
    """

    name: ClassVar[str]
    question: ClassVar[str]

    def __init__(self, tokenizer: Any, eos: frozenset[int], vocabulary: int) -> None:
        """Compile the grammar for a tokenizer.

        Args:
            tokenizer: a fast one of Hugging Face.
            eos: the tokens that end a report.
            vocabulary: the width of the model's logits.

        Raises:
            UnsuitableTokenizer: if it can't write boxes in this way, or has more tokens than the model.
        """
        self.eos, self.vocabulary = eos, vocabulary
        if len(tokenizer) > vocabulary:
            raise UnsuitableTokenizer(f"the tokenizer has {len(tokenizer)} tokens, the model only {vocabulary}")
        self._tokenizer = from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=sorted(eos))
        self._whole = self._whole_characters(len(tokenizer))
        self._fresh = LLMatcher(self._tokenizer, self._lark(tokenizer))
        if self._fresh.is_error():
            raise UnsuitableTokenizer(f"the report grammar can't be compiled: {self._fresh.get_error()}")

    @abstractmethod
    def _lark(self, tokenizer: Any) -> str:
        """Return the grammar for decoding. Raises UnsuitableTokenizer."""

    @classmethod
    @abstractmethod
    def notation(cls, width: int = 1, height: int = 1) -> BoxNotation:
        """Return how boxes are written in the report of an image of this size, in pixels."""

    @classmethod
    def view(cls, image: Image.Image) -> Image.Image:
        """Return the image as the model's processor takes it: RGB."""
        return image.convert("RGB")

    @abstractmethod
    def restrict(self, allowed: Tensor, text: str, notation: BoxNotation) -> None:
        """Remove the tokens that can't continue a box from a mask, in place.

        Args:
            allowed: bool (vocabulary,).
            text: the report so far.
            notation: in which the text is written.
        """

    def bin(self, token: int) -> int | None:
        """Return the location bin that a token stands for; None for all other tokens."""
        return None

    def allowed(self, matcher: LLMatcher, text: str, notation: BoxNotation) -> Tensor:
        """Return the tokens that may follow: bool, (vocabulary,), on the CPU.

        A token that is a part of a character is never among them, so that a report can be read, and ended, after
        any token. A letter that the vocabulary lacks as a whole can't be written.

        Args:
            matcher: of the report so far.
            text: the report so far.
            notation: in which the text is written.
        """
        allowed = allowed_tokens(matcher, self.vocabulary) & self._whole
        self.restrict(allowed, text, notation)
        return allowed

    def _whole_characters(self, tokens: int) -> Tensor:
        whole = torch.ones(self.vocabulary, dtype=torch.bool)
        for token in range(tokens):
            try:
                self._tokenizer.decode_bytes([token]).decode()
            except UnicodeDecodeError:
                whole[token] = False
        return whole

    def matcher(self) -> LLMatcher:
        """Return a grammar matcher at the start of a report."""
        return self._fresh.deep_copy()

    def text(self, token: int) -> str:
        """Return what an allowed token adds to a report's text."""
        text: str = self._tokenizer.decode_bytes([token]).decode()
        return text

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a piece of report text."""
        return list(self._tokenizer.tokenize_str(text, parse_special=True))


def first_location(tokenizer: Any) -> int | None:
    """Return the id of ``<loc0000>`` if the tokenizer has all 1,024 location tokens in sequence, else None."""
    ids = tokenizer.convert_tokens_to_ids([f"<loc{number:04d}>" for number in range(LOC_BINS)])
    # For an unknown token, a tokenizer returns None or the id of its unknown token.
    return ids[0] if ids[0] is not None and ids == list(range(ids[0], ids[0] + LOC_BINS)) else None


class LocDecoding(BoxDecoding):
    """``<locNNNN>`` tokens with consecutive ids, in PaliGemma's order ymin xmin ymax xmax.

    The image is stretched to the model's square, so that bins are fractions of its own height and width.

    Attributes:
        first: id of ``<loc0000>``.
    """

    name = "loc"
    question = "Report this chest radiograph."

    def _lark(self, tokenizer: Any) -> str:
        first = first_location(tokenizer)
        if first is None:
            raise UnsuitableTokenizer("the tokenizer has no 1,024 consecutive location tokens")
        self.first = first
        return LOC.lark_of_tokens(first)

    @classmethod
    def notation(cls, width: int = 1, height: int = 1) -> BoxNotation:
        """Return the notation, which is the same for all sizes."""
        return LOC

    def restrict(self, allowed: Tensor, text: str, notation: BoxNotation) -> None:
        """Remove the location tokens that would make a box end before it begins, in place."""
        box = box_so_far(text)
        bins = allowed_bins(box if len(box) < 4 else [])
        allowed[self.first : self.first + bins.start] = False
        allowed[self.first + bins.stop : self.first + LOC_BINS] = False

    def bin(self, token: int) -> int | None:
        """Return the bin of a location token, 0 to 1023."""
        number = token - self.first
        return number if 0 <= number < LOC_BINS else None

    def text(self, token: int) -> str:
        """Return what a token adds to a report's text, location tokens by their names."""
        number = self.bin(token)
        return super().text(token) if number is None else f"<loc{number:04d}>"


class Box2dDecoding(BoxDecoding):
    """JSON with ``box_2d`` in 0 to 1000, ymin xmin ymax xmax, as Gemini and MedGemma 1.5 write boxes.

    These models were trained on images padded to a square, and get such images; no box is on the padding alone.
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
        return Box2dNotation().lark_for_decoding

    @classmethod
    def notation(cls, width: int = 1, height: int = 1) -> BoxNotation:
        """Return the notation for an image of this size, in pixels, that is padded to a square."""
        return Box2dNotation(ImageFrame.padded(width, height))

    def restrict(self, allowed: Tensor, text: str, notation: BoxNotation) -> None:
        """Remove the tokens whose digits can't lead to a box on the image, in place."""
        assert isinstance(notation, Box2dNotation)
        if notation.in_box(text):
            for token in allowed.nonzero()[:, 0].tolist():
                allowed[token] = notation.box_may_continue(text, self.text(token))

    @classmethod
    def view(cls, image: Image.Image) -> Image.Image:
        """Return the image in RGB, in the middle of the smallest black square that holds it."""
        side = max(image.size)
        square = Image.new("RGB", (side, side))
        square.paste(image.convert("RGB"), ((side - image.width) // 2, (side - image.height) // 2))
        return square


BOX_DECODINGS: tuple[type[BoxDecoding], ...] = (LocDecoding, Box2dDecoding)


def allowed_tokens(matcher: LLMatcher, vocabulary: int) -> Tensor:
    """Return the tokens that a matcher accepts next: bool, (vocabulary,), on the CPU.

    llguidance's own torch kernel is avoided: it needs ``torch.compile``, hence a C++ compiler on each worker.
    """
    packed = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
    return torch.from_numpy(np.unpackbits(packed, count=vocabulary, bitorder="little").view(np.bool_))
