"""Runs the decoder's forward passes: the prompts of new sequences, and the next tokens of running ones."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AttentionInterface

from emx_worker.engine.progress import EngineProgress
from emx_worker.engine.prompt import EmbeddedPrompt, room_for_prompt
from emx_worker.engine.sequence import ReportSequence
from emx_worker.engine.slot_cache import ForwardLayout, SlotCache, attention, decode_layout, fold, put
from emx_worker.model.loading import LoadedModel

_ATTENTION = "emx-slots"
AttentionInterface.register(_ATTENTION, attention)


class DecoderRunner:
    """Runs the decoder over a ``SlotCache`` that it owns. Images are encoded by the ``ImageEncoder``.

    Prompts differ only in the image and in what follows it. The tokens before the image are therefore computed
    once, and the tokens that every report begins with are part of the prompt.

    Attributes:
        slots: keys and values of the running sequences.
    """

    def __init__(self, loaded: LoadedModel, slots: int, progress: EngineProgress) -> None:
        """Allocate the slots, and compute the tokens before the image.

        Args:
            loaded: the model.
            slots: how many sequences may run together.
            progress: counts the steps.
        """
        self._model, self._device = loaded.model, loaded.device
        self._decoder, self._architecture = loaded.model.model.language_model, loaded.architecture
        config = loaded.model.config.get_text_config()
        self._groups = config.num_attention_heads // config.num_key_value_heads
        self._window: int | None = getattr(config, "sliding_window", None)
        self._progress = progress
        self._dtype = self._decoder.norm.weight.dtype
        self._loaded = loaded
        self._plain = self._prompt(loaded.prompt)
        capacity = room_for_prompt(loaded) + loaded.max_new_tokens
        self.slots = SlotCache(config, slots, capacity, self._dtype, self._device)
        self._run_prefix()

    def _prompt(self, asked: str) -> EmbeddedPrompt:
        return EmbeddedPrompt.of(self._loaded, asked, self._window, self._dtype)

    def _run_prefix(self) -> None:
        if end := self._plain.prefix:
            with torch.inference_mode():
                self._forward(self._plain.embedded[:, :end], self._prefill_layout(self._plain, [0], 0, end))
            self.slots.keep_prefix(end)

    def _prefill_layout(self, prompt: EmbeddedPrompt, slots: list[int], first: int, last: int) -> ForwardLayout:
        return ForwardLayout(
            rows=torch.tensor(slots, device=self._device)[:, None],
            places=torch.arange(first, last, device=self._device)[None],
            full=fold(prompt.full[None, first:last, :last], self._groups).to(self._device),
            sliding=fold(prompt.sliding[None, first:last, :last], self._groups).to(self._device),
        )

    @torch.inference_mode()
    def prefill(self, batch: list[ReportSequence], slots: list[int]) -> Tensor:
        """Prefill sequences whose images are encoded.

        Args:
            batch: the sequences.
            slots: a free slot for each.

        Returns:
            The decoder's output for the last token of each sequence, (sequences, width).
        """
        hidden = torch.empty(len(batch), self._plain.embedded.shape[2], dtype=self._dtype, device=self._device)
        for asked in dict.fromkeys(sequence.question for sequence in batch):
            places = [place for place, sequence in enumerate(batch) if sequence.question == asked]
            hidden[places] = self._prefill_same_question(
                asked, [batch[place] for place in places], [slots[place] for place in places]
            )
        return hidden

    def _prefill_same_question(self, asked: str, batch: list[ReportSequence], slots: list[int]) -> Tensor:
        prompt = self._plain if asked == self._loaded.prompt else self._prompt(asked)
        features = torch.stack([sequence.features for sequence in batch if sequence.features is not None])
        embedded = prompt.embedded.repeat(len(batch), 1, 1)
        embedded[:, prompt.prefix : prompt.image_end] = features.to(embedded.dtype)
        layout = self._prefill_layout(prompt, slots, prompt.prefix, embedded.shape[1])
        with self._progress.layers(self._decoder.layers):
            hidden = self._forward(embedded[:, prompt.prefix :], layout)[:, -1]
        for sequence in batch:
            sequence.features, sequence.cached, sequence.prompt_tokens = None, embedded.shape[1], prompt.tokens
            sequence.mark()
        self._progress.step()
        return hidden

    @torch.inference_mode()
    def decode_step(self, batch: list[ReportSequence]) -> Tensor:
        """Run one forward pass over the tokens that are not in the slots yet.

        Args:
            batch: the first running sequences, or all; the n-th holds slot n.

        Returns:
            The decoder's output for the last token of each sequence, (sequences, width).
        """
        written = [sequence.prompt_tokens + len(sequence.tokens) for sequence in batch]
        cached = [sequence.cached for sequence in batch]
        new = [after - before for after, before in zip(written, cached, strict=True)]
        layout = decode_layout(cached, new, self._groups, self._window, self._device)
        tokens = [token for sequence, count in zip(batch, new, strict=True) for token in sequence.tokens[-count:]]
        hidden = self._forward(self._embed(np.array(tokens)[:, None]), layout)[:, 0]
        for sequence, length in zip(batch, written, strict=True):
            sequence.cached = length
        self._progress.step()
        return hidden if layout.spread is None else hidden[layout.spread[:, -1]]

    def _embed(self, ids: NDArray[np.int64]) -> Tensor:
        """Embed tokens in the dtype that the decoder computes in; a large embedding is stored in another."""
        embedded: Tensor = self._model.get_input_embeddings()(put(ids, self._device))
        return embedded.to(self._decoder.norm.weight.dtype)

    def _forward(self, embedded: Tensor, layout: ForwardLayout) -> Tensor:
        """Return the decoder's output, (lines, columns, width)."""
        self.slots.layout = layout
        with self._slot_attention():
            out = self._decoder(
                inputs_embeds=embedded,
                attention_mask=self._architecture.sees_all,  # the layout has the masks
                position_ids=layout.places + self._architecture.first_position,
                past_key_values=self.slots,
                layout=layout,
            )
        self.slots.layout = None
        hidden: Tensor = out.last_hidden_state
        return hidden

    @contextmanager
    def _slot_attention(self) -> Iterator[None]:
        """Use the slots' attention while the engine runs the decoder; ``generate`` can use the model otherwise."""
        config = self._decoder.config
        before, config._attn_implementation = config._attn_implementation, _ATTENTION
        try:
            yield
        finally:
            config._attn_implementation = before
