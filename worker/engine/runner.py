"""The model's forward pass over a static batch."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.modeling_outputs import BaseModelOutput

from worker.architectures import prompt_ids
from worker.engine.sequence import Sequence
from worker.loading import LoadedModel
from worker.study import declined


class Runner:
    """Prefills a batch, then decodes it a token at a time. Rows that have ended leave the cache for good.

    All rows have the same prompt, hence the same length at every step: no padding and no attention mask.

    Attributes:
        progress: steps so far: a step is one forward of the decoder, or one layer of a prefill, which on a CPU
            may take minutes for a large batch.
        prompt_tokens: length of the prompt, image tokens included.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._model, self._device = loaded.model, loaded.device
        self._processor, self._architecture = loaded.processor, loaded.architecture
        self._guard = loaded.guard
        self._prompt = self._tokenised(loaded.prompt)
        self._stacks = [stack for stack in self._model.modules() if isinstance(stack, nn.ModuleList)]
        self.progress = 0
        self.prompt_tokens = self._prompt["input_ids"].shape[1]
        self.release()

    def release(self) -> None:
        """Forget the batch, so that nothing of a study stays in memory after its report."""
        self._rows: list[Sequence] = []
        self._cache = DynamicCache(config=self._model.config.get_text_config())

    def pixels(self, sequence: Sequence) -> Tensor:
        """The model's view of the study's image, fp32 (1, 3, side, side)."""
        image = sequence.study.image.convert("RGB")
        pixels: Tensor = self._processor.image_processor(images=image, return_tensors="pt")["pixel_values"]
        return pixels

    @torch.inference_mode()
    def run(self, batch: list[Sequence]) -> Tensor:
        """Logits of the next token, fp32 (len(batch), vocabulary), on the CPU."""
        began = time.perf_counter()
        fresh = not batch[0].tokens
        logits = self._prefill(batch) if fresh else self._decode(batch)
        logits = logits.float().cpu()
        seconds = time.perf_counter() - began
        for sequence in batch:
            if fresh:
                sequence.prefill_seconds += seconds
            else:
                sequence.generate_seconds += seconds
        self.progress += 1
        return logits

    def _prefill(self, batch: list[Sequence]) -> Tensor:
        self.release()
        self._rows = batch
        pixels = [sequence.pixels for sequence in batch if sequence.pixels is not None]
        with self._layers_counted(), self._watched(batch):
            out = self._model(
                **{name: ids.expand(len(batch), -1) for name, ids in self._prompt.items()},
                pixel_values=torch.cat(pixels).to(self._device),
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        for sequence in batch:
            sequence.pixels = None
        logits: Tensor = out.logits[:, -1]
        return logits

    @contextmanager
    def _watched(self, batch: list[Sequence]) -> Iterator[None]:
        """Let the guard see what the vision tower makes of the images."""
        guard = self._guard
        if guard is None:
            yield
            return

        def look(_: nn.Module, __: object, seen: BaseModelOutput) -> None:
            for sequence, distance in zip(batch, guard.distances(seen.last_hidden_state).tolist(), strict=True):
                if distance > guard.threshold:
                    sequence.declined = declined(distance, guard.threshold)

        hook = self._model.model.vision_tower.register_forward_hook(look)
        try:
            yield
        finally:
            hook.remove()

    @contextmanager
    def _layers_counted(self) -> Iterator[None]:
        def count(*_: object) -> None:
            self.progress += 1

        hooks = [layer.register_forward_hook(count) for stack in self._stacks for layer in stack]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _decode(self, batch: list[Sequence]) -> Tensor:
        if len(batch) < len(self._rows):
            kept = [row for row, sequence in enumerate(self._rows) if sequence in batch]
            self._cache.batch_select_indices(torch.tensor(kept, device=self._device))
            self._rows = batch
        tokens = torch.tensor([[sequence.tokens[-1]] for sequence in batch], device=self._device)
        out = self._model(
            input_ids=tokens,
            attention_mask=self._architecture.sees_all,  # sliding layers have dropped what they shouldn't see
            past_key_values=self._cache,
            use_cache=True,
        )
        logits: Tensor = out.logits[:, -1]
        return logits

    def _tokenised(self, prompt: str) -> dict[str, Tensor]:
        ids = prompt_ids(self._architecture, self._processor, prompt)
        types = self._architecture.token_types(self._processor, ids, prompt=ids.shape[1])
        return {"input_ids": ids.to(self._device), "token_type_ids": types.to(self._device)}
