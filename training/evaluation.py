"""Reports of held-out phantoms by a saved checkpoint, read greedily with plain transformers."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from PIL import Image
from rich.progress import track
from transformers import AutoProcessor, Gemma3ForConditionalGeneration, Gemma3Processor

from training.phantoms import render
from training.reports import report_of
from training.scoring import Prediction
from training.tokenizer import PROMPT

_BATCH = 50
_LONGEST = 160
"""More tokens than any phantom's report has."""


class PhantomReader:
    """A checkpoint with its processor, in fp32 arithmetic on the weights as saved."""

    def __init__(self, folder: Path) -> None:
        self.processor: Gemma3Processor = AutoProcessor.from_pretrained(folder)
        self.model = Gemma3ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self._prompt = self.processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}],
            add_generation_prompt=True,
        )

    @torch.inference_mode()
    def read(self, images: Sequence[Image.Image]) -> list[str]:
        """The report text of each image; nothing keeps it to the grammar."""
        inputs = self.processor(
            images=[[image] for image in images],
            text=[self._prompt] * len(images),
            return_tensors="pt",
            add_special_tokens=False,
        )
        written = self.model.generate(**inputs, max_new_tokens=_LONGEST, do_sample=False)
        answers = written[:, inputs["input_ids"].shape[1] :]
        texts = self.processor.tokenizer.batch_decode(answers)
        return [text.split("<end_of_turn>")[0] for text in texts]

    def read_phantoms(self, seeds: Iterable[int], size: int) -> list[Prediction]:
        """Truth and prediction for each seed, rendered at ``size`` pixels."""
        order = list(seeds)
        groups = [order[at : at + _BATCH] for at in range(0, len(order), _BATCH)]
        predictions = []
        for group in track(groups, description=f"Reading phantoms of {size} px"):
            drawn = [render(seed, size) for seed in group]
            texts = self.read([Image.fromarray(phantom.image) for phantom in drawn])
            predictions += [
                Prediction(id=str(seed), truth=str(report_of(phantom.findings)), prediction=text)
                for seed, phantom, text in zip(group, drawn, texts, strict=True)
            ]
        return predictions
