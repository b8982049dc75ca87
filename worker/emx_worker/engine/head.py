"""Chooses the next token from the decoder's output: the language-model head, the mask, and the choice."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emx_worker.engine.slot_cache import put

FEW_TOKENS = 4096
"""Up to this many allowed tokens, the head is computed for these tokens only."""


class Choice(NamedTuple):
    """What was chosen for one sequence.

    Attributes:
        token: its id.
        probability: among the tokens that were allowed.
        is_finite: whether the decoder's output was; else token and probability mean nothing.
    """

    token: int
    probability: float
    is_finite: bool


class GreedyHead:
    """Chooses the most probable of the allowed tokens."""

    def __init__(self, model: Any) -> None:
        self._head = model.lm_head
        self._stored: torch.dtype = model.get_input_embeddings().weight.dtype
        self._cap: float | None = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
        self._few = FEW_TOKENS if type(self._head) is nn.Linear else 0  # PEFT's heads have no rows to select

    @torch.inference_mode()
    def choose(self, hidden: Tensor, allowed: NDArray[np.bool_]) -> list[Choice]:
        """Choose the best allowed token of each sequence.

        The masks are looked at where they were computed, so that the device is waited for once: for the result.

        Args:
            hidden: the decoder's last output, (sequences, width).
            allowed: (sequences, vocabulary).
        """
        order, chosen = self._chosen(hidden, allowed)
        found = sorted(zip(order, *chosen.tolist(), strict=True))
        return [Choice(int(token), probability, bool(is_finite)) for _, token, probability, is_finite in found]

    def _chosen(self, hidden: Tensor, allowed: NDArray[np.bool_]) -> tuple[list[int], Tensor]:
        """Return sequences in some order, and (3, sequences) with the numbers of their choices, on the device."""
        few = np.count_nonzero(allowed, axis=1) <= self._few
        order, chosen = [], []
        for rows, among in ((np.flatnonzero(few), self._among_few), (np.flatnonzero(~few), self._among_all)):
            if len(rows):
                order += rows.tolist()
                output = hidden.index_select(0, put(rows, hidden.device))
                best, probabilities = among(output, allowed[rows])
                is_finite = output.isfinite().all(dim=-1)
                chosen.append(torch.stack([best.float(), probabilities, is_finite.float()]))  # ids are below 2**24
        return order, torch.cat(chosen, dim=1)

    def _among_few(self, hidden: Tensor, allowed: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
        ids = np.flatnonzero(allowed.any(axis=0))
        candidates = put(ids, hidden.device)
        logits = hidden @ self._head.weight[candidates].to(hidden.dtype).t()
        best, probabilities = self._best(logits, allowed[:, ids])
        return candidates[best], probabilities

    def _among_all(self, hidden: Tensor, allowed: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
        return self._best(self._head(hidden.to(self._stored)), allowed)

    def _best(self, logits: Tensor, allowed: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
        logits = logits.float()
        if self._cap is not None:
            logits = torch.tanh(logits / self._cap) * self._cap
        logits = logits.masked_fill(put(~allowed, logits.device), float("-inf"))
        best = logits.argmax(dim=-1, keepdim=True)
        return best[:, 0], logits.softmax(dim=-1).gather(1, best)[:, 0]
