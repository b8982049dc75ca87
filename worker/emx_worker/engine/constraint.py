"""Decides what a report may contain next: the grammar, the order of a box's corners, and the token budget."""

from torch import Tensor

from emx_shared.grammar import BoxNotation
from emx_worker.model.box_decoding import BoxDecoding

LONGEST_ENDING = 80
"""Upper bound for the tokens of a shortest ending. The longest such ending begins with the report (61 characters),
and a token has at least one character or is a location. While more tokens than this are left, endings needn't be
computed."""


class GrammarFailure(RuntimeError):
    """The grammar matcher refused a token that it should accept."""


def smallest_budget(decoding: BoxDecoding) -> int:
    """Return the number of tokens of the shortest report, its end-of-turn token included."""
    return len(decoding.encode(decoding.notation().shortest_ending(""))) + 1


class ReportConstraint:
    """Holds one report to the grammar, and to its token budget.

    Where the grammar leaves no choice, the tokens that must follow are appended without asking the model
    (jump-forward), so that ``allowed`` is only called where there is a choice.

    Invariant: after each token, the shortest ending of the text so far, and the token that ends the turn, fit into
    the rest of the budget. A token that would break this isn't taken; the ending is written instead.

    Attributes:
        opening: the tokens that the report begins with; they are already appended.
        text: of the report so far, byte for byte.
        pieces: the text that each token added.
        cut_short: whether the budget made the constraint write the ending.
        finished: whether the turn has ended.
    """

    def __init__(self, decoding: BoxDecoding, budget: int, notation: BoxNotation) -> None:
        """Begin a report.

        Args:
            decoding: how the model writes boxes.
            budget: in tokens, at least ``smallest_budget(decoding)``.
            notation: of the decoding, for the image that the report is about.
        """
        self._decoding, self._matcher, self._notation = decoding, decoding.matcher(), notation
        self._left = budget
        self.text, self._own = "", 0
        self.pieces: list[str] = []
        self.cut_short = False
        self.finished = False
        self.opening = self._append_forced()

    @property
    def complete_locations(self) -> int:
        """Count the locations that the model itself completed."""
        return self._notation.complete_locations(self.text[: self._own])

    def allowed(self) -> Tensor:
        """Return the tokens that may follow: bool, (vocabulary,), on the CPU."""
        return self._decoding.allowed(self._matcher, self.text, self._notation)

    def take(self, token: int) -> list[int]:
        """Append an allowed token and all that must follow it, or the ending if the budget demands it.

        Returns:
            The tokens that were appended.

        Raises:
            GrammarFailure: if the grammar refuses the token.
        """
        if not self._affordable(token):
            return self._append_ending()
        self._append(token)
        return [token, *self._append_forced()]

    def _append_forced(self) -> list[int]:
        taken: list[int] = []
        while not self.finished and (following := self._matcher.compute_ff_tokens()):
            for token in following:
                if not self._affordable(token):
                    return taken + self._append_ending()
                self._append(token)
                taken.append(token)
        return taken

    def _append_ending(self) -> list[int]:
        self.cut_short = True
        ending = [*self._decoding.encode(self._notation.shortest_ending(self.text)), min(self._decoding.eos)]
        for token in ending:
            self._append(token)
        return ending

    def _affordable(self, token: int) -> bool:
        left = self._left - 1
        if left > LONGEST_ENDING or token in self._decoding.eos:
            return True
        ending = self._notation.shortest_ending(self.text + self._decoding.text(token))
        return len(self._decoding.encode(ending)) + 1 <= left

    def _append(self, token: int) -> None:
        if not self._matcher.consume_token(token):
            raise GrammarFailure("the grammar refused a token")
        self._left -= 1
        if token in self._decoding.eos:
            self.finished = True
            self.pieces.append("")
            return
        self.pieces.append(self._decoding.text(token))
        self.text += self.pieces[-1]
        if not self.cut_short:
            self._own = len(self.text)
