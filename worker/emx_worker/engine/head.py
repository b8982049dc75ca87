"""Chooses the next token from the decoder's output: the language-model head, the mask, and the choice."""

from typing import Any

import torch
from torch import Tensor, nn

FEW_TOKENS = 4096
"""Up to this many allowed tokens, the head is computed for these tokens only."""


class GreedyHead:
    """Chooses the most probable of the allowed tokens."""

    def __init__(self, model: Any) -> None:
        self._head = model.lm_head
        self._stored: torch.dtype = model.get_input_embeddings().weight.dtype
        self._cap: float | None = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
        self._few = FEW_TOKENS if type(self._head) is nn.Linear else 0  # PEFT's heads have no rows to select

    @torch.inference_mode()
    def choose(self, hidden: Tensor, allowed: Tensor) -> tuple[list[int], list[float]]:
        """Choose the best allowed token of each sequence.

        Args:
            hidden: the decoder's last output, (sequences, width).
            allowed: bool (sequences, vocabulary).

        Returns:
            The tokens, and the probability of each among the tokens allowed.
        """
        allowed = allowed.to(hidden.device)
        few = allowed.sum(dim=1) <= self._few
        tokens = torch.empty(len(hidden), dtype=torch.long, device=hidden.device)
        probabilities = torch.empty(len(hidden), device=hidden.device)
        for rows, choose in ((few, self._among_few), (~few, self._among_all)):
            if rows.any():
                tokens[rows], probabilities[rows] = choose(hidden[rows], allowed[rows])
        return tokens.tolist(), probabilities.tolist()

    def _among_few(self, hidden: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
        candidates = allowed.any(dim=0).nonzero()[:, 0]
        logits = hidden @ self._head.weight[candidates].to(hidden.dtype).t()
        best, probabilities = self._best(logits, allowed[:, candidates])
        return candidates[best], probabilities

    def _among_all(self, hidden: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
        return self._best(self._head(hidden.to(self._stored)), allowed)

    def _best(self, logits: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
        logits = logits.float()
        if self._cap is not None:
            logits = torch.tanh(logits / self._cap) * self._cap
        logits = logits.masked_fill(~allowed, float("-inf"))
        best = logits.argmax(dim=-1, keepdim=True)
        return best[:, 0], logits.softmax(dim=-1).gather(1, best)[:, 0]
