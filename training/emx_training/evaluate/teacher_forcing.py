"""Token accuracy: how often the model predicts the true report's next token.

The model is fed the true report. At each of its tokens, including the end of the turn, the most probable token of
the whole vocabulary, without the grammar, is compared with the true one. *Words* are all tokens that aren't
locations. A location is right if it is the same bin, and near if the most probable token is a location at most
``NEAR`` bins off (8 of 1,023 bins: 0.8 % of the image). Nothing is generated: each token is judged after a true
beginning, so this says less about the reports that the model writes by itself than the other figures do.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from emx_training.evaluate.predictions import ForcedTokens
from emx_training.losses import IGNORED
from emx_worker.model.architectures import Model, prompt_ids
from emx_worker.model.loading import LoadedModel

NEAR = 8
"""Bins by which a near location may be off."""

_MAX_ROWS = 32
_MAX_LOGITS = 2**26
"""Images, and logits (256 MiB), that are computed at a time."""


class TeacherForcing:
    """Feeds true reports to a model with the worker's weights and prompt."""

    def __init__(self, loaded: LoadedModel) -> None:
        """Prepare a loaded model."""
        self._model, self._decoding, self._device = loaded.model, loaded.box_decoding, loaded.device
        self._processor, self._architecture = loaded.processor, loaded.architecture
        self._prompt = prompt_ids(loaded.architecture, loaded.processor, loaded.prompt).to(loaded.device)

    @torch.inference_mode()
    def count(self, image_tokens: Tensor, truths: Sequence[str]) -> list[ForcedTokens]:
        """Count each image's tokens.

        Args:
            image_tokens: the projector's output, (images, tokens, width); see ``kept_image_tokens``.
            truths: the true reports, as text.
        """
        end, tokenizer = self._architecture.end(self._processor), self._processor.tokenizer
        answers = [
            tokenizer(text + end, add_special_tokens=False, return_tensors="pt")["input_ids"][0] for text in truths
        ]
        # Answers of similar length share a batch, to pad little.
        order = sorted(range(len(answers)), key=lambda index: len(answers[index]))
        longest = max(map(len, answers), default=1)
        at_once = max(1, min(_MAX_ROWS, _MAX_LOGITS // (longest * self._decoding.vocabulary)))
        counted: dict[int, ForcedTokens] = {}
        for start in range(0, len(order), at_once):
            rows = order[start : start + at_once]
            true = torch.nn.utils.rnn.pad_sequence([answers[row] for row in rows], True, IGNORED)
            guessed = self._guessed(image_tokens[torch.tensor(rows)], true.to(self._device))
            counted |= zip(rows, map(self._counts, true.tolist(), guessed.tolist()), strict=True)
        return [counted[index] for index in range(len(answers))]

    def _guessed(self, image_tokens: Tensor, true: Tensor) -> Tensor:
        """Return the most probable token at each place of the answers, (images, answer) int64."""
        before = true[:, :-1].clamp(min=0)  # padding comes last: no token that counts attends to it
        ids = torch.cat([self._prompt.expand(len(true), -1), before], dim=1)
        logits = self._model(
            input_ids=ids,
            token_type_ids=self._architecture.token_types(self._processor, ids, self._prompt.shape[1]),
            mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=image_tokens)},
            logits_to_keep=true.shape[1],
            use_cache=False,
        ).logits
        best: Tensor = logits.argmax(dim=-1)
        return best

    def _counts(self, true: list[int], guessed: list[int]) -> ForcedTokens:
        words, right_words, locations, right_locations, near = 0, 0, 0, 0, 0
        for token, guess in zip(true, guessed, strict=True):
            bin_, guessed_bin = self._decoding.bin(token), self._decoding.bin(guess)
            if token == IGNORED:
                continue
            if bin_ is None:
                words += 1
                right_words += token == guess
            else:
                locations += 1
                right_locations += token == guess
                near += guessed_bin is not None and abs(guessed_bin - bin_) <= NEAR
        return ForcedTokens(
            words=words,
            right_words=right_words,
            locations=locations,
            right_locations=right_locations,
            near_locations=near,
        )


@contextmanager
def kept_image_tokens(model: Model) -> Iterator[list[Tensor]]:
    """Keep the projector's output while the model reads, a tensor for each batch.

    To encode the images again would take as long as reading them.
    """
    kept: list[Tensor] = []
    hook = model.model.multi_modal_projector.register_forward_hook(lambda _, __, seen: kept.append(seen))
    try:
        yield kept
    finally:
        hook.remove()
