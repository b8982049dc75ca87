"""Token accuracy: how often the model would have written the true report's next token.

The true report is fed, and at each of its tokens, the end of the turn included, the model's most probable token
of the whole vocabulary, no grammar helping, is compared with the true one. *Words* are all tokens that are no
locations. A location is right if it is the very bin, and near if a location at most ``NEAR`` bins off was the
most probable (8 of 1,023 bins: 0.8 % of the image). Nothing is generated: each token is judged after a true
beginning, so this says less about a report that the model writes by itself than the other figures do.
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
"""Bins."""

_ROWS = 32
_LOGITS = 2**26
"""Studies, and logits (256 MiB), that are computed at a time."""


class TeacherForcing:
    """Feeds true reports to the model that the worker runs, with the same weights and prompt."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._model, self._decoding, self._device = loaded.model, loaded.box_decoding, loaded.device
        self._processor, self._architecture = loaded.processor, loaded.architecture
        self._prompt = prompt_ids(loaded.architecture, loaded.processor, loaded.prompt).to(loaded.device)

    @torch.inference_mode()
    def count(self, image_tokens: Tensor, truths: Sequence[str]) -> list[ForcedTokens]:
        """The counts of each study.

        Parameters:
            image_tokens: what the model makes of the images, (studies, tokens, width); see ``kept_image_tokens``.
            truths: the true reports, as text.
        """
        end, tokenizer = self._architecture.end(self._processor), self._processor.tokenizer
        answers = [
            tokenizer(text + end, add_special_tokens=False, return_tensors="pt")["input_ids"][0] for text in truths
        ]
        # Neighbours in length go together, so that little is padded.
        order = sorted(range(len(answers)), key=lambda index: len(answers[index]))
        longest = max(map(len, answers), default=1)
        at_once = max(1, min(_ROWS, _LOGITS // (longest * self._decoding.vocabulary)))
        counted: dict[int, ForcedTokens] = {}
        for begun in range(0, len(order), at_once):
            rows = order[begun : begun + at_once]
            true = torch.nn.utils.rnn.pad_sequence([answers[row] for row in rows], True, IGNORED)
            guessed = self._guessed(image_tokens[torch.tensor(rows)], true.to(self._device))
            counted |= zip(rows, map(self._counts, true.tolist(), guessed.tolist()), strict=True)
        return [counted[index] for index in range(len(answers))]

    def _guessed(self, image_tokens: Tensor, true: Tensor) -> Tensor:
        """The most probable token at each place of the answers, (studies, answer)."""
        before = true[:, :-1].clamp(min=0)  # padding comes last, where nothing that counts can see it
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
    """What the model makes of images while it reads, a tensor for each batch: seeing them anew would cost as much
    as the reading."""
    kept: list[Tensor] = []
    hook = model.model.multi_modal_projector.register_forward_hook(lambda _, __, seen: kept.append(seen))
    try:
        yield kept
    finally:
        hook.remove()
