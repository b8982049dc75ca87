"""What a report may hold next: the grammar, the order of a box's corners, and the token budget."""

from torch import Tensor

from emx_shared.grammar import Notation
from emx_worker.model.box_decoding import Dialect, allowed_tokens

LONGEST_ENDING = 80
"""Tokens that no shortest ending exceeds: the longest begins with the report (61 characters), and a token has at
least one character or is a location. While more are left, endings needn't be looked at."""


class GrammarFailure(RuntimeError):
    """The matcher refused a token that it should take."""


def smallest_budget(dialect: Dialect) -> int:
    """Tokens of the shortest report, its end-of-turn token included."""
    return len(dialect.encode(dialect.notation().shortest_ending(""))) + 1


class Constraint:
    """Holds one report to the grammar, and within its budget.

    Where the grammar leaves no choice, the tokens that must follow are appended without asking the model
    (jump-forward), so that ``allowed`` is asked for choices alone.

    Invariant: after each token, the shortest ending of the text so far, and the token that ends the turn, fit
    into what is left of the budget. A token that would break it isn't taken; the ending is written instead.

    Attributes:
        opening: the tokens that the report begins with, already appended.
        text: written so far, byte for byte.
        pieces: what each token added to it.
        cut_short: whether the budget made the constraint write the ending.
        whole: locations that the model itself wrote to the end.
        finished: whether the turn has ended.
    """

    def __init__(self, dialect: Dialect, budget: int, notation: Notation) -> None:
        """A report in its dialect's notation for the image.

        ``budget`` in tokens, at least ``smallest_budget(dialect)``.
        """
        self._dialect, self._matcher, self._notation = dialect, dialect.matcher(), notation
        self._left = budget
        self.text, self._own = "", 0
        self.pieces: list[str] = []
        self.cut_short = False
        self.finished = False
        self.opening = self._forced()

    @property
    def whole(self) -> int:
        return self._notation.whole(self.text[: self._own])

    def allowed(self) -> Tensor:
        """The tokens that may follow: bool, (vocabulary,), on the CPU."""
        allowed = allowed_tokens(self._matcher, self._dialect.vocabulary)
        self._dialect.restrict(allowed, self.text, self._notation)
        return allowed

    def take(self, token: int) -> list[int]:
        """Append an allowed token and all that must follow it, or, where the budget demands it, the ending.

        Returns what was appended. Raises GrammarFailure.
        """
        if not self._affordable(token):
            return self._end()
        self._append(token)
        return [token, *self._forced()]

    def _forced(self) -> list[int]:
        taken: list[int] = []
        while not self.finished and (following := self._matcher.compute_ff_tokens()):
            for token in following:
                if not self._affordable(token):
                    return taken + self._end()
                self._append(token)
                taken.append(token)
        return taken

    def _end(self) -> list[int]:
        self.cut_short = True
        ending = [*self._dialect.encode(self._notation.shortest_ending(self.text)), min(self._dialect.eos)]
        for token in ending:
            self._append(token)
        return ending

    def _affordable(self, token: int) -> bool:
        left = self._left - 1
        if left > LONGEST_ENDING or token in self._dialect.eos:
            return True
        ending = self._notation.shortest_ending(self.text + self._dialect.text(token))
        return len(self._dialect.encode(ending)) + 1 <= left

    def _append(self, token: int) -> None:
        if not self._matcher.consume_token(token):
            raise GrammarFailure("the grammar refused a token")
        self._left -= 1
        if token in self._dialect.eos:
            self.finished = True
            self.pieces.append("")
            return
        self.pieces.append(self._dialect.text(token))
        self.text += self.pieces[-1]
        if not self.cut_short:
            self._own = len(self.text)
