"""The decoder's forward passes: the prompts of new studies, and the next tokens of those under way."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import AttentionInterface

from emx_worker.engine.progress import Progress
from emx_worker.engine.prompt import Prompt, room_for_prompt
from emx_worker.engine.sequence import Sequence
from emx_worker.engine.slots import Slots, Step, attention, decoding, fold
from emx_worker.model.loading import LoadedModel

_ATTENTION = "emx-slots"
AttentionInterface.register(_ATTENTION, attention)


class Runner:
    """Runs the decoder over ``Slots`` that it owns. Images are the ``Encoder``'s affair.

    The prompt is the same for all studies but for the image and what is said after it: what comes before the image
    is computed once, and the tokens that every report begins with are part of it.

    Attributes:
        slots: of the studies under way.
        prompt_tokens: length of the plain prompt, image tokens included.
    """

    def __init__(self, loaded: LoadedModel, slots: int, progress: Progress) -> None:
        """Takes the memory of ``slots`` studies."""
        self._model, self._device = loaded.model, loaded.device
        self._decoder, self._architecture = loaded.model.model.language_model, loaded.architecture
        config = loaded.model.config.get_text_config()
        self._groups = config.num_attention_heads // config.num_key_value_heads
        self._window: int | None = getattr(config, "sliding_window", None)
        self._progress = progress
        self._dtype = self._decoder.norm.weight.dtype
        self._loaded = loaded
        self._plain = self._prompt(loaded.prompt)
        self.prompt_tokens = self._plain.tokens
        capacity = room_for_prompt(loaded) + loaded.max_new_tokens
        self.slots = Slots(config, slots, capacity, self._dtype, self._device)
        self._run_prefix()

    def _prompt(self, asked: str) -> Prompt:
        return Prompt.of(self._loaded, asked, self._window, self._dtype)

    def _run_prefix(self) -> None:
        if end := self._plain.prefix:
            with torch.inference_mode():
                self._decode(self._plain.embedded[:, :end], self._prompt_step(self._plain, [0], 0, end))
            self.slots.keep_prefix(end)

    def _prompt_step(self, prompt: Prompt, slots: list[int], first: int, last: int) -> Step:
        return Step(
            rows=torch.tensor(slots, device=self._device)[:, None],
            places=torch.arange(first, last, device=self._device)[None],
            full=fold(prompt.full[None, first:last, :last], self._groups).to(self._device),
            sliding=fold(prompt.sliding[None, first:last, :last], self._groups).to(self._device),
        )

    @torch.inference_mode()
    def begin(self, batch: list[Sequence], slots: list[int]) -> Tensor:
        """Prefill studies, whose images are encoded, into these slots.

        Returns the decoder's output for the last token of each, (studies, width).
        """
        hidden = torch.empty(len(batch), self._plain.embedded.shape[2], dtype=self._dtype, device=self._device)
        for asked in dict.fromkeys(sequence.question for sequence in batch):
            places = [place for place, sequence in enumerate(batch) if sequence.question == asked]
            hidden[places] = self._begin(
                asked, [batch[place] for place in places], [slots[place] for place in places]
            )
        return hidden

    def _begin(self, asked: str, batch: list[Sequence], slots: list[int]) -> Tensor:
        """Those that are asked the same."""
        prompt = self._plain if asked == self._loaded.prompt else self._prompt(asked)
        features = torch.stack([sequence.features for sequence in batch if sequence.features is not None])
        embedded = prompt.embedded.repeat(len(batch), 1, 1)
        embedded[:, prompt.prefix : prompt.image_end] = features.to(embedded.dtype)
        step = self._prompt_step(prompt, slots, prompt.prefix, embedded.shape[1])
        with self._progress.layers(self._decoder.layers):
            hidden = self._decode(embedded[:, prompt.prefix :], step)[:, -1]
        for sequence in batch:
            sequence.features, sequence.held, sequence.prompt_tokens = None, embedded.shape[1], prompt.tokens
            sequence.mark()
        self._progress.step()
        return hidden

    @torch.inference_mode()
    def go_on(self, batch: list[Sequence]) -> Tensor:
        """One forward of all studies under way, the n-th in slot n: their tokens that aren't in their slots yet.

        Returns the decoder's output for the last token of each, (studies, width).
        """
        written = [sequence.prompt_tokens + len(sequence.tokens) for sequence in batch]
        held = [sequence.held for sequence in batch]
        new = [after - before for after, before in zip(written, held, strict=True)]
        step = decoding(held, new, self._groups, self._window, self._device)
        tokens = [token for sequence, count in zip(batch, new, strict=True) for token in sequence.tokens[-count:]]
        hidden = self._decode(self._embed(torch.tensor(tokens)[:, None]), step)[:, 0]
        for sequence, length in zip(batch, written, strict=True):
            sequence.held = length
        self._progress.step()
        return hidden if step.spread is None else hidden[step.spread[:, -1]]

    def _embed(self, ids: Tensor) -> Tensor:
        """In the type that the decoder computes in, which a large embedding doesn't have."""
        embedded: Tensor = self._model.get_input_embeddings()(ids.to(self._device))
        return embedded.to(self._decoder.norm.weight.dtype)

    def _decode(self, embedded: Tensor, step: Step) -> Tensor:
        """The decoder's output, (lines, columns, width)."""
        self.slots.step = step
        with self._attention():
            out = self._decoder(
                inputs_embeds=embedded,
                attention_mask=self._architecture.sees_all,  # the step has the masks
                position_ids=step.places + self._architecture.first_position,
                past_key_values=self.slots,
                step=step,
            )
        self.slots.step = None
        hidden: Tensor = out.last_hidden_state
        return hidden

    @contextmanager
    def _attention(self) -> Iterator[None]:
        """Only while the engine runs it: the model stays one that ``generate`` can run too."""
        config = self._decoder.config
        before, config._attn_implementation = config._attn_implementation, _ATTENTION
        try:
            yield
        finally:
            config._attn_implementation = before
