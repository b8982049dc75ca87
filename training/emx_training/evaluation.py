"""Reports of held-out phantoms by a saved checkpoint, read greedily with plain transformers."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from PIL import Image
from rich.progress import track

from emx_training.data.phantom_reports import report_of
from emx_training.evaluate.scoring import Prediction
from emx_training.phantoms import render
from emx_training.pretrain.tokenizer import PROMPT
from emx_worker.model.architectures import architecture_of, prompt_ids
from emx_worker.model.checkpoint import read_config, read_processor
from emx_worker.model.weights import read_weights

_BATCH = 50
_LONGEST = 160
"""More tokens than any phantom's report has."""


class PhantomReader:
    """A checkpoint with its processor, in fp32 arithmetic on the weights as saved."""

    def __init__(self, folder: Path) -> None:
        config = read_config(folder)
        self.architecture = architecture_of(config)
        self.processor = read_processor(folder, config)
        self.model = read_weights(folder, config, dtype=torch.float32).eval()
        self._prompt = prompt_ids(self.architecture, self.processor, PROMPT)

    @torch.inference_mode()
    def read(self, images: Sequence[Image.Image]) -> list[str]:
        """The report text of each image; nothing keeps it to the grammar."""
        prompts = self._prompt.expand(len(images), -1)
        length = prompts.shape[1]
        pictures = [image.convert("RGB") for image in images]
        written = self.model.generate(
            input_ids=prompts,
            token_type_ids=self.architecture.token_types(self.processor, prompts, length),
            attention_mask=torch.ones_like(prompts),
            pixel_values=self.processor.image_processor(images=pictures, return_tensors="pt")["pixel_values"],
            max_new_tokens=_LONGEST,
            do_sample=False,
        )
        texts = self.processor.tokenizer.batch_decode(written[:, length:])
        return [text.split(self.architecture.end(self.processor))[0] for text in texts]

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
