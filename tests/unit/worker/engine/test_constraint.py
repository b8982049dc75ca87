"""Whatever tokens a model might choose, the text is a report, and within its budget."""

import json
import random
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from emx_shared.grammar import LOC_BINS, Box2dNotation, ReportText
from emx_training.data.phantom_reports import corpus
from emx_training.pretrain.tokenizer import SPECIAL_TOKENS, build_tokenizer
from emx_worker.engine.constraint import LONGEST_ENDING, ReportConstraint, smallest_budget
from emx_worker.model.box_decoding import (
    BOX_DECODINGS,
    Box2dDecoding,
    BoxDecoding,
    LocDecoding,
    UnsuitableTokenizer,
    allowed_tokens,
)

Choice = Callable[[list[int]], int]
EOS = frozenset({4})
SIZE = (120, 200)
"""Width and height of the image, which fills only a part of the square that ``box_2d`` refers to."""


def like_gemmas() -> PreTrainedTokenizerFast:
    """Build a small tokenizer like Gemma's.

    Spaces become ▁, bytes replace unknown characters, <bos> is added in front, and the locations are added last.
    """
    tokenizer = Tokenizer(BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    bytes_ = [f"<0x{n:02X}>" for n in range(256)]
    letters = [chr(n) for n in range(33, 127)] + ["▁", "\n"]
    trainer = BpeTrainer(
        vocab_size=900,
        special_tokens=[*SPECIAL_TOKENS, "<unk>", *bytes_],
        initial_alphabet=letters,
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    made = json.loads(tokenizer.to_str())
    made["added_tokens"] = [token for token in made["added_tokens"] if token["content"] not in bytes_]
    tokenizer = Tokenizer.from_str(json.dumps(made))
    tokenizer.add_tokens([AddedToken(f"<loc{n:04d}>", normalized=False) for n in range(LOC_BINS)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>")


@pytest.fixture(scope="module", params=[build_tokenizer, like_gemmas], ids=["bytes", "gemma"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    made: PreTrainedTokenizerFast = request.param()
    return made


@pytest.fixture(scope="module", params=BOX_DECODINGS, ids=lambda kind: kind.name)
def decoding(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast) -> BoxDecoding:
    made: BoxDecoding = request.param(tokenizer, EOS, len(tokenizer) + 7)  # a model may have more rows than tokens
    return made


@pytest.fixture(scope="module")
def loc(tokenizer: PreTrainedTokenizerFast) -> LocDecoding:
    return LocDecoding(tokenizer, EOS, len(tokenizer) + 7)


@pytest.fixture(scope="module")
def box_2d(tokenizer: PreTrainedTokenizerFast) -> Box2dDecoding:
    return Box2dDecoding(tokenizer, EOS, len(tokenizer) + 7)


def begin(decoding: BoxDecoding, budget: int) -> ReportConstraint:
    return ReportConstraint(decoding, budget, decoding.notation(*SIZE))


def parse(decoding: BoxDecoding, constraint: ReportConstraint) -> ReportText:
    return decoding.notation(*SIZE).parse(constraint.text)


def write(decoding: BoxDecoding, budget: int, choose: Choice) -> tuple[ReportConstraint, int]:
    """Write a report whose tokens ``choose`` selects; return it with its number of tokens."""
    constraint = begin(decoding, budget)
    taken = len(constraint.opening)
    while not constraint.finished:
        allowed = constraint.allowed().nonzero().flatten().tolist()
        assert allowed, constraint.text
        taken += len(constraint.take(choose(allowed)))
        assert taken <= budget
    return constraint, taken


@settings(max_examples=60, deadline=None)
@given(spare=st.integers(0, 150), seed=st.integers(0, 2**32))
def test_random_tokens_make_a_report_within_any_budget(decoding: BoxDecoding, spare: int, seed: int) -> None:
    constraint, _ = write(decoding, smallest_budget(decoding) + spare, random.Random(seed).choice)
    parse(decoding, constraint)


@settings(max_examples=40, deadline=None)
@given(spare=st.integers(20, 150), seed=st.integers(0, 2**32))
def test_reports_made_mostly_of_boxes_end_within_any_budget(decoding: BoxDecoding, spare: int, seed: int) -> None:
    """Random tokens seldom leave the first section: this choice prefers the tokens that end it."""
    drawn = random.Random(seed)
    ends = {decoding.encode(text)[0] for text in (".", "\n", ";", " ", "[", ",")}

    def hurried(allowed: list[int]) -> int:
        return drawn.choice([token for token in allowed if token in ends and drawn.random() < 0.8] or allowed)

    constraint, _ = write(decoding, smallest_budget(decoding) + spare, hurried)
    assert constraint.complete_locations <= len(parse(decoding, constraint).locations)


@pytest.mark.parametrize("extreme", [min, max])
def test_a_model_that_never_ends_a_report_has_it_ended_by_the_budget(
    decoding: BoxDecoding, extreme: Callable[[list[int]], int]
) -> None:
    never = EOS | {decoding.encode("\n")[0]}

    def endless(allowed: list[int]) -> int:
        return extreme([token for token in allowed if token not in never] or allowed)

    constraint, taken = write(decoding, 1_000, endless)
    assert constraint.cut_short
    assert 1_000 - LONGEST_ENDING <= taken <= 1_000
    parse(decoding, constraint)


def test_a_long_report_has_at_most_16_boxes(decoding: LocDecoding) -> None:
    after = {text: decoding.encode(text)[0] for text in (";", " ", ",", "{", "[", "\n")}

    def greedy(allowed: list[int]) -> int:
        """End a section as soon as it may end, but always begin another box."""
        for text in ("\n", "[") if constraint.text.count(":") == 1 else after:
            if after[text] in allowed:
                return after[text]
        return min([token for token in allowed if token in EOS] or allowed)

    constraint = begin(decoding, 5_000)
    while not constraint.finished:
        constraint.take(greedy(constraint.allowed().nonzero().flatten().tolist()))
    assert len(parse(decoding, constraint).locations) == 16


RADIOLOGISTS = (
    "There is a 1.8 cm nodule (<2 cm) in the left upper lobe, approx. 3-4 mm larger; CTR 0.58 (58 %).",
    '1. "Opacité" at 20°. 2. T.B. was excluded?',
    "Größe ≥ 5 mm – it’s stable, ½ of the lung, 3×4 cm², µ.",
)


@pytest.mark.parametrize("text", RADIOLOGISTS)
def test_what_radiologists_say_can_be_said(decoding: BoxDecoding, text: str) -> None:
    """As far as the vocabulary has its letters: these two have none but ASCII as whole tokens."""
    written = text.encode("ascii", "ignore").decode()
    nothing = decoding.notation().shortest_ending("FINDINGS: A.").partition("\nIMPRESSION")[0]
    script = decoding.encode(f"FINDINGS: {written}{nothing}\nIMPRESSION: {written}")
    constraint = begin(decoding, 1_000)
    assert follow(constraint, script) == len(script)
    assert parse(decoding, constraint).findings == written


def test_a_part_of_a_character_is_never_allowed(decoding: BoxDecoding) -> None:
    constraint = begin(decoding, 500)
    allowed = constraint.allowed()
    parts = set(decoding.encode("é漢")) - set(decoding.encode("A"))
    assert parts and not any(allowed[token] for token in parts)


def follow(constraint: ReportConstraint, script: list[int]) -> int:
    """Choose these tokens, wherever there is a choice, until the report ends; return its number of tokens."""
    written = list(constraint.opening)
    while not constraint.finished and len(written) < len(script):
        token = script[len(written)]
        assert constraint.allowed()[token]
        written += constraint.take(token)
        assert constraint.cut_short or written == script[: len(written)]
    return len(written)


BEGUN = {
    "loc": "FINDINGS: A.\nLOCATIONS: cardiomegaly <loc0001><loc0002><loc0003><loc0004>;",
    "box_2d": 'FINDINGS: A.\nLOCATIONS: [{"box_2d": [1, 300, 3, 400], "label": "cardiomegaly"}, {"box_2d": [',
}
NEXT = {"loc": " interstitial pattern left", "box_2d": '9, 500, 12, 600], "label": "interstitial pattern left"}'}


def test_a_box_that_the_budget_had_to_finish_is_not_counted_as_the_models(decoding: BoxDecoding) -> None:
    begun = BEGUN[decoding.name]
    letters = [token for letter in NEXT[decoding.name] for token in decoding.encode(letter)]
    budget = (
        len(decoding.encode(begun)) + len(decoding.encode(decoding.notation(*SIZE).shortest_ending(begun))) + 1
    )
    script = [*decoding.encode(begun), *letters]
    constraint = begin(decoding, budget)
    taken = follow(constraint, script)
    assert (constraint.cut_short, constraint.complete_locations) == (True, 1)
    assert taken <= budget
    labels = [place.finding.label for place in parse(decoding, constraint).locations]
    assert len(labels) == 2 and labels[0] == "cardiomegaly"


def test_a_box_never_ends_before_it_begins(loc: LocDecoding) -> None:
    constraint = begin(loc, 500)
    follow(constraint, loc.encode("FINDINGS: A.\nLOCATIONS: cardiomegaly <loc0500><loc1022>"))
    bins = [loc.bin(token) for token in constraint.allowed().nonzero().flatten().tolist()]
    assert bins == list(range(501, LOC_BINS))
    constraint.take(loc.first + 501)
    assert constraint.allowed().nonzero().flatten().tolist() == [loc.first + LOC_BINS - 1]


@pytest.mark.parametrize(
    ("numbers", "next_"),
    [
        ("", set("0123456789")),
        ("10", set("0123456789,")),
        ("100", {","}),  # nothing can follow 1000
        ("0, ", set("234567")),
        ("0, 2", set("0123456789")),
        ("500, 790, ", set("56789") | {"1"}),
        ("500, 790, 50", set("123456789")),
        ("500, 790, 5", set("0123456789")),
        ("500, 790, 501, ", {"7", "8"}),
        ("500, 790, 501, 80", {"0"}),
    ],
)
def test_numbers_are_held_to_what_makes_a_box_on_the_image(
    box_2d: Box2dDecoding, numbers: str, next_: set[str]
) -> None:
    """An image of 120 × 200 pixels is from 200 to 800 on the x axis of the square."""
    begun = 'FINDINGS: A.\nLOCATIONS: [{"box_2d": [' + numbers
    notation = box_2d.notation(*SIZE)
    assert isinstance(notation, Box2dNotation)
    assert notation.in_box(begun)
    assert {
        piece for piece in "0123456789" + "," * begun[-1].isdigit() if notation.box_may_continue(begun, piece)
    } == next_


def test_the_mask_allows_what_the_matcher_accepts(decoding: LocDecoding) -> None:
    matcher = decoding.matcher()
    matcher.consume_tokens(decoding.encode("FINDINGS: Clear"))
    mask = allowed_tokens(matcher, decoding.vocabulary)
    assert mask.shape == (decoding.vocabulary,)
    for token in range(0, decoding.vocabulary, 13):
        assert bool(mask[token]) == (matcher.validate_tokens([token]) == 1), token
    assert mask.dtype == torch.bool


def test_a_tokenizer_without_consecutive_locations_is_refused() -> None:
    tokenizer = build_tokenizer()
    with pytest.raises(UnsuitableTokenizer, match="the model only"):
        LocDecoding(tokenizer, EOS, len(tokenizer) - 1)
    made = json.loads(tokenizer.backend_tokenizer.to_str())
    made["added_tokens"] = [token for token in made["added_tokens"] if token["content"] != "<loc0100>"]
    with pytest.raises(UnsuitableTokenizer, match="1,024"):
        LocDecoding(PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(made))), EOS, 4096)
