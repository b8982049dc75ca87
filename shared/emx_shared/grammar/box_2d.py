"""LOCATIONS in JSON: ``[{"box_2d": [250, 612, 340, 709], "label": "mass left"}, …]``."""

from dataclasses import dataclass
from functools import cached_property

from lark import Token, Tree

from emx_shared.contracts.findings import TERMS
from emx_shared.grammar.notation import BoxNotation, end_term, grammar, text_of
from emx_shared.grammar.parts import LocatedFinding, LocBox, MalformedReport

TOP = 1000
"""The number of the square's lower and right edge; 0 is the upper and left edge."""

_OBJECT, _LABEL, _END = '{"box_2d": [', '], "label": "', '"}'


@dataclass(frozen=True)
class ImageFrame:
    """The place of an image in the square that the model sees, in fractions of the square's side."""

    ymin: float = 0.0
    xmin: float = 0.0
    ymax: float = 1.0
    xmax: float = 1.0

    @classmethod
    def padded(cls, width: int, height: int) -> "ImageFrame":
        """Return the frame of an image in the middle of the smallest square that holds it.

        Args:
            width: of the image, in pixels.
            height: of the image, in pixels.
        """
        side = max(width, height)
        left, top = ((side - extent) // 2 for extent in (width, height))
        return cls(top / side, left / side, (top + height) / side, (left + width) / side)

    def numbers(self, axis: int) -> range:
        """Return the numbers that a box may have on an axis (0 is y) if it is to cover some of the image."""
        low, high = (self.ymin, self.ymax) if axis == 0 else (self.xmin, self.xmax)
        first, last = int(low * TOP), -int(-high * TOP // 1)
        return range(first, max(last, first + 1) + 1)

    def of_image(self, ymin: int, xmin: int, ymax: int, xmax: int) -> LocBox:
        """Convert a box from numbers (0 to 1000 over the square) to bins of the image, clipped to the image."""
        height, width = self.ymax - self.ymin, self.xmax - self.xmin
        ylow, yhigh = ((v / TOP - self.ymin) / height for v in (ymin, ymax))
        xlow, xhigh = ((v / TOP - self.xmin) / width for v in (xmin, xmax))
        return LocBox.of_fractions(*(min(max(v, 0.0), 1.0) for v in (ylow, xlow, yhigh, xhigh)))


class Box2dNotation(BoxNotation):
    """The notation of Gemini and MedGemma 1.5. Boxes are read relative to the image, without its padding."""

    name = "box_2d"

    def __init__(self, frame: ImageFrame | None = None) -> None:
        """Write boxes relative to a square. ``frame``: the image's place in it; by default all of it."""
        self._frame = frame or ImageFrame()

    @cached_property
    def lark(self) -> str:
        """Return the grammar of report texts."""
        return grammar(self.name)

    def _located(self, node: Tree[Token]) -> LocatedFinding:
        box, term = (text_of(child) for child in node.children if isinstance(child, Tree))
        numbers = [int(v) for v in box.split(", ")]
        if any(value not in self._following(numbers[:place]) for place, value in enumerate(numbers)):
            raise MalformedReport(f"invalid box, or outside the image: {box}")
        return LocatedFinding(*TERMS[term], self._frame.of_image(*numbers))

    def complete_locations(self, text: str) -> int:
        """Count the complete JSON objects."""
        return text.count("}")

    def in_box(self, text: str) -> bool:
        """Tell whether the beginning of a report ends before or among the numbers of a box."""
        return "]" not in text[text.rfind("{") :] if "{" in text else False

    def box_may_continue(self, text: str, piece: str) -> bool:
        """Tell whether a box can still cover some of the image after one more piece of text.

        Args:
            text: the beginning of a report that ends in a box (``in_box``).
            piece: of text, which the grammar allows.
        """
        last = text[text.rindex("{") :]
        if len(last) + len(piece) <= len(_OBJECT):
            return True
        inside, bracket, _ = (last + piece)[len(_OBJECT) :].partition("]")
        *before, number = inside.split(",")
        numbers = [int(v) for v in before]
        if any(value not in self._following(numbers[:place]) for place, value in enumerate(numbers)):
            return False
        number, following = number.strip(), self._following(numbers)
        if bracket:
            return int(number) in following
        return any(_overlap(low, high, following) for low, high in _continuations(number))

    def _following(self, numbers: list[int]) -> range:
        """Return the numbers that may follow in a box (ymin xmin ymax xmax)."""
        all_ = self._frame.numbers(len(numbers) % 2)
        if len(numbers) < 2:
            return all_[:-1]
        return range(max(numbers[-2] + 1, all_.start), all_.stop)

    def _end_locations(self, begun: str) -> str:
        if "{" not in begun:
            return "[]"[len(begun) :]
        last = begun[begun.rindex("{") :]
        _, brace, after = last.partition("}")
        if not brace:
            return self._end_object(last) + "]"
        if after == "]":
            return ""
        return ", "[len(after) :] + self._end_object("") + "]" if after else "]"

    def _end_object(self, begun: str) -> str:
        if len(begun) < len(_OBJECT):
            return _OBJECT[len(begun) :] + self._end_numbers("") + _LABEL + end_term("", _END)
        inside = begun[len(_OBJECT) :]
        if "]" not in inside:
            return self._end_numbers(inside) + _LABEL + end_term("", _END)
        after = inside[inside.index("]") :]
        if len(after) < len(_LABEL):
            return _LABEL[len(after) :] + end_term("", _END)
        return end_term(after[len(_LABEL) :], _END)

    def _end_numbers(self, begun: str) -> str:
        *before, number = begun.split(",")
        numbers = [int(v) for v in before]
        space = " " if numbers and not number else ""
        digits = number.strip()
        fitting = (v for v in self._following(numbers) if str(v).startswith(digits))
        numbers.append(min(fitting, key=lambda v: (len(str(v)), v)))
        ending = space + str(numbers[-1])[len(digits) :]
        while len(numbers) < 4:
            numbers.append(self._following(numbers)[0])
            ending += f", {numbers[-1]}"
        return ending


def _continuations(digits: str) -> list[tuple[int, int]]:
    """Return the numbers that begin with these digits, as the first and last of each length up to four."""
    if not digits:
        return [(0, TOP)]
    if digits == "0":
        return [(0, 0)]
    return [
        (int(digits) * 10**more, (int(digits) + 1) * 10**more - 1)
        for more in range(len(str(TOP)) + 1 - len(digits))
    ]


def _overlap(low: int, high: int, numbers: range) -> bool:
    return max(low, numbers.start) <= min(high, numbers.stop - 1)
