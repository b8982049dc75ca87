"""Token accuracy against the plainest way to count it: one image at a time, by the model's own forward."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from emx_training.data.phantom_reports import report_of
from emx_training.evaluate.predictions import ForcedTokens
from emx_training.evaluate.teacher_forcing import TeacherForcing, kept_image_tokens
from emx_training.phantoms import held_out_seeds, render
from emx_worker.model.loading import LoadedModel, load_model
from support.paths import ROOT

PHANTOMS = [render(seed) for seed in held_out_seeds(6)]
TRUTHS = [str(report_of(one.findings)) for one in PHANTOMS]


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model(ROOT / "models" / "demo", quantisation="none", device="cpu")


@torch.inference_mode()
def plainly(loaded: LoadedModel, image: Image.Image, truth: str) -> ForcedTokens:
    content = [{"type": "image", "image": image.convert("RGB")}, {"type": "text", "text": loaded.prompt}]
    prompt = loaded.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    answer = [
        *loaded.box_decoding.encode(truth),
        loaded.processor.tokenizer.convert_tokens_to_ids("<end_of_turn>"),
    ]
    ids = torch.cat([prompt["input_ids"], torch.tensor([answer])], dim=1)
    kinds = torch.cat([prompt["token_type_ids"], torch.zeros(1, len(answer), dtype=torch.long)], dim=1)
    logits = loaded.model(input_ids=ids, token_type_ids=kinds, pixel_values=prompt["pixel_values"]).logits[0]
    guessed = logits[-len(answer) - 1 : -1].argmax(dim=-1).tolist()
    places = [
        (place, loaded.box_decoding.bin(guess))
        for true, guess in zip(answer, guessed, strict=True)
        if (place := loaded.box_decoding.bin(true)) is not None
    ]
    right = [true == guess for true, guess in zip(answer, guessed, strict=True)]
    right_places = sum(true == guess for true, guess in places)
    return ForcedTokens(
        words=len(answer) - len(places),
        right_words=sum(right) - right_places,
        locations=len(places),
        right_locations=right_places,
        near_locations=sum(guess is not None and abs(true - guess) <= 8 for true, guess in places),
    )


def test_a_batch_counts_what_the_models_own_forward_gives_image_by_image(loaded: LoadedModel) -> None:
    images = [Image.fromarray(one.image).convert("RGB") for one in PHANTOMS]
    expected = [plainly(loaded, image, truth) for image, truth in zip(images, TRUTHS, strict=True)]
    pixels = loaded.processor.image_processor(images=[[image] for image in images], return_tensors="pt")
    with torch.inference_mode():
        seen = loaded.model.model.get_image_features(pixels["pixel_values"], return_dict=True).pooler_output
    assert TeacherForcing(loaded).count(seen, TRUTHS) == expected
    assert len({one.words for one in expected}) > 2  # of several lengths, so that some are padded
    assert any(one.locations for one in expected)
    assert all(0 < one.right_words <= one.words for one in expected)


def test_what_the_projector_gives_is_kept_and_the_hook_is_gone_afterwards(loaded: LoadedModel) -> None:
    pixels = torch.zeros(2, 3, *[loaded.model.config.vision_config.image_size] * 2)
    with torch.inference_mode(), kept_image_tokens(loaded.model) as kept:
        seen = loaded.model.model.get_image_features(pixels, return_dict=True).pooler_output
    assert len(kept) == 1
    assert torch.equal(kept[0], seen)
    assert not loaded.model.model.multi_modal_projector._forward_hooks


def test_paligemma_is_fed_in_the_form_its_own_processor_writes(paligemma: Path) -> None:
    loaded = load_model(paligemma, quantisation="none", device="cpu")
    images = [Image.fromarray(one.image).convert("RGB") for one in PHANTOMS]
    pixels = loaded.processor.image_processor(images=images, return_tensors="pt")["pixel_values"]
    tokenizer = loaded.processor.tokenizer
    with torch.inference_mode():
        seen = loaded.model.model.get_image_features(pixels, return_dict=True).pooler_output
        for row, (image, truth) in enumerate(zip(images, TRUTHS, strict=True)):
            text = f"<image>{loaded.prompt}"
            theirs = loaded.processor(images=image, text=text, suffix=truth, return_tensors="pt")
            labels = theirs.pop("labels")[0]
            plain = loaded.model(**theirs).logits[0, :-1].argmax(dim=-1)[labels[1:] >= 0]
            true = tokenizer(f"{truth}<eos>", add_special_tokens=False, return_tensors="pt")["input_ids"]
            assert torch.equal(labels[labels >= 0], true[0])
            guessed = TeacherForcing(loaded)._guessed(seen[row : row + 1], true)[0]
            assert torch.equal(guessed, plain)
            assert len(set(guessed.tolist())) > 5
