import json
from collections.abc import Iterator
from pathlib import Path

import llguidance.hf
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher
from PIL import Image
from torch import nn
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
)

from emx_shared.contracts.findings import TERMS
from emx_shared.grammar import LOC, LOC_BINS, LocatedFinding, LocBox
from emx_training.data.phantom_reports import report_of
from emx_training.pretrain.demo_architecture import (
    build_processor,
    demo_config,
    phantom_model_spec,
    random_model,
    save_checkpoint,
    tiny_config,
)
from emx_training.pretrain.tokenizer import FIRST_LOC, PROMPT, VOCABULARY_SIZE, build_tokenizer

TOKENIZER = build_tokenizer()


def ids_of(text: str) -> list[int]:
    ids: list[int] = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    return ids


def reports() -> Iterator[str]:
    for number, term in enumerate(TERMS):
        finding, side = TERMS[term]
        box = LocBox(31 * number % 500, 4 * number, 600 + number, 1023 - 3 * number)
        yield str(report_of([LocatedFinding(finding, side, box)]))
    yield str(report_of([]))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    config = tiny_config()
    save_checkpoint(
        random_model(3, config), build_processor(config, TOKENIZER), phantom_model_spec("tiny", "seed-3"), folder
    )
    return folder


def test_reports_round_trip_byte_for_byte_in_few_tokens() -> None:
    for text in reports():
        ids = ids_of(text)
        assert TOKENIZER.decode(ids) == text
        assert len(ids) < 60


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_round_trips(text: str) -> None:
    assert TOKENIZER.decode(ids_of(text)) == text


@pytest.mark.parametrize(
    "text", ["a <loc0000> b", " <loc0001><loc1023>", "<loc1024>", "▁ Ġ  do n't . ,", "é\x00\u0301🩻\r\n"]
)
def test_odd_text_round_trips(text: str) -> None:
    assert TOKENIZER.decode(ids_of(text)) == text


def test_locations_are_the_last_1024_ids_in_order() -> None:
    ids = ids_of("".join(f"<loc{n:04d}>" for n in range(LOC_BINS)))
    assert ids == list(range(FIRST_LOC, VOCABULARY_SIZE))
    assert len(TOKENIZER) == VOCABULARY_SIZE


def test_the_tokenizer_is_built_the_same_each_time() -> None:
    assert build_tokenizer().backend_tokenizer.to_str() == TOKENIZER.backend_tokenizer.to_str()


def test_llguidance_follows_the_report_grammar_over_this_vocabulary() -> None:
    tokens = llguidance.hf.from_tokenizer(TOKENIZER, n_vocab=VOCABULARY_SIZE)
    for text in reports():
        matcher = LLMatcher(tokens, LOC.lark_of_tokens(FIRST_LOC))
        ids = ids_of(text)
        assert matcher.try_consume_tokens(ids) == len(ids), matcher.get_error()
        assert matcher.is_accepting()


def test_transformers_loads_a_checkpoint_by_itself(checkpoint: Path) -> None:
    processor = AutoProcessor.from_pretrained(checkpoint)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    assert isinstance(processor, Gemma3Processor)
    assert isinstance(model, Gemma3ForConditionalGeneration)
    assert model.dtype == torch.bfloat16
    assert model.generation_config.eos_token_id == processor.tokenizer.convert_tokens_to_ids("<end_of_turn>")
    for name, weight in random_model(3, tiny_config()).state_dict().items():
        assert torch.equal(weight.bfloat16(), model.state_dict()[name]), name


def test_the_processor_writes_gemma_3s_chat_and_image_tokens(checkpoint: Path) -> None:
    processor = AutoProcessor.from_pretrained(checkpoint)
    content = [{"type": "image"}, {"type": "text", "text": PROMPT}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    assert text == (f"<bos><start_of_turn>user\n<start_of_image>{PROMPT}<end_of_turn>\n<start_of_turn>model\n")
    inputs = processor(images=[Image.new("L", (50, 70), 255)], text=[text], return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 32, 32)
    assert inputs["pixel_values"].max() == 1
    assert inputs["token_type_ids"].sum() == 4
    model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    assert model(**inputs).logits.shape == (1, inputs["input_ids"].shape[1], VOCABULARY_SIZE)


def test_emx_json_has_what_a_worker_needs(checkpoint: Path) -> None:
    spec = json.loads((checkpoint / "emx.json").read_text())
    assert spec == {
        "name": "tiny",
        "revision": "seed-3",
        "dialect": "loc",
        "demo": True,
        "prompt": PROMPT,
        "max_new_tokens": 256,
        "takes_indication": False,
    }


def test_every_linear_input_of_the_demo_is_a_multiple_of_64_and_it_fits_10_megabytes() -> None:
    model = random_model(0, demo_config())
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            assert module.in_features % 64 == 0, name
    assert 2 * model.num_parameters() <= 10e6


def test_a_seed_gives_the_same_weights_and_neighbouring_locations_start_alike() -> None:
    before = torch.random.get_rng_state()
    one, again = random_model(1, tiny_config()), random_model(1, tiny_config())
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    rows = nn.functional.normalize(one.get_input_embeddings().weight[FIRST_LOC:], dim=1)
    near, far = (rows[500] @ rows[501]).item(), (rows[500] @ rows[700]).item()
    assert near > 0.95 > far + 0.3
