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
from emx_worker.engine.constraint import Constraint, smallest_budget
from emx_worker.model.box_decoding import (
    DIALECTS,
    Box2dDialect,
    Dialect,
    LocDialect,
    UnknownDialect,
    allowed_tokens,
)

Choice = Callable[[list[int]], int]
EOS = frozenset({4})
SIZE = (120, 200)
"""Of the image, which fills only a part of the square that ``box_2d`` is asked about."""


def like_gemmas() -> PreTrainedTokenizerFast:
    """A small tokenizer made as Gemma's is: spaces become ▁, bytes stand in for unknown characters, <bos> comes
    first by itself, and the locations are added last."""
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


@pytest.fixture(scope="module", params=DIALECTS, ids=lambda kind: kind.name)
def dialect(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast) -> Dialect:
    made: Dialect = request.param(tokenizer, EOS, len(tokenizer) + 7)  # a model may have more rows than tokens
    return made


@pytest.fixture(scope="module")
def loc(tokenizer: PreTrainedTokenizerFast) -> LocDialect:
    return LocDialect(tokenizer, EOS, len(tokenizer) + 7)


@pytest.fixture(scope="module")
def box_2d(tokenizer: PreTrainedTokenizerFast) -> Box2dDialect:
    return Box2dDialect(tokenizer, EOS, len(tokenizer) + 7)


def begin(dialect: Dialect, budget: int) -> Constraint:
    return Constraint(dialect, budget, dialect.notation(*SIZE))


def parse(dialect: Dialect, constraint: Constraint) -> ReportText:
    return dialect.notation(*SIZE).parse(constraint.text)


def write(dialect: Dialect, budget: int, choose: Choice) -> tuple[Constraint, int]:
    """A report by a model that chooses so among the allowed tokens, and how many tokens it took."""
    constraint = begin(dialect, budget)
    taken = len(constraint.opening)
    while not constraint.finished:
        allowed = constraint.allowed().nonzero().flatten().tolist()
        assert allowed, constraint.text
        taken += len(constraint.take(choose(allowed)))
        assert taken <= budget
    return constraint, taken


@settings(max_examples=60, deadline=None)
@given(spare=st.integers(0, 150), seed=st.integers(0, 2**32))
def test_random_tokens_make_a_report_within_any_budget(dialect: Dialect, spare: int, seed: int) -> None:
    constraint, _ = write(dialect, smallest_budget(dialect) + spare, random.Random(seed).choice)
    parse(dialect, constraint)


@settings(max_examples=40, deadline=None)
@given(spare=st.integers(20, 150), seed=st.integers(0, 2**32))
def test_reports_made_mostly_of_boxes_end_within_any_budget(dialect: Dialect, spare: int, seed: int) -> None:
    """Random tokens seldom leave the first section: here short ways there are taken."""
    drawn = random.Random(seed)
    ends = {dialect.encode(text)[0] for text in (".", "\n", ";", " ", "[", ",")}

    def hurried(allowed: list[int]) -> int:
        return drawn.choice([token for token in allowed if token in ends and drawn.random() < 0.8] or allowed)

    constraint, _ = write(dialect, smallest_budget(dialect) + spare, hurried)
    assert constraint.whole <= len(parse(dialect, constraint).locations)


@pytest.mark.parametrize("extreme", [min, max])
def test_even_a_model_that_never_ends_a_report_is_ended_by_the_grammar(
    dialect: Dialect, extreme: Callable[[list[int]], int]
) -> None:
    """Every repetition is bounded, so a budget of tens of thousands isn't used up."""

    def endless(allowed: list[int]) -> int:
        return extreme([token for token in allowed if token not in EOS] or allowed)

    constraint, taken = write(dialect, 50_000, endless)
    assert not constraint.cut_short
    assert taken < 12_000
    parse(dialect, constraint)


def test_a_long_report_has_at_most_16_boxes_and_24_sentences(dialect: LocDialect) -> None:
    shortest = {text: dialect.encode(text)[0] for text in ("A", ".", " ", ";", ",", "{", "[")}

    def greedy(allowed: list[int]) -> int:
        """Ever another shortest sentence, ever another box."""
        for text in (" ", ";", ",", ".", "A", "{", "["):
            if shortest[text] in allowed:
                return shortest[text]
        return min([token for token in allowed if token not in EOS] or allowed)

    constraint, _ = write(dialect, 50_000, greedy)
    report = parse(dialect, constraint)
    assert len(report.locations) == 16
    assert report.findings.count(".") == report.impression.count(".") == 12


def follow(constraint: Constraint, script: list[int]) -> int:
    """Choose these tokens, where there is a choice, until the report ends; returns how many there are then."""
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


def test_a_box_that_the_budget_had_to_finish_is_not_counted_as_the_models(dialect: Dialect) -> None:
    begun = BEGUN[dialect.name]
    letters = [token for letter in NEXT[dialect.name] for token in dialect.encode(letter)]
    budget = len(dialect.encode(begun)) + len(dialect.encode(dialect.notation(*SIZE).shortest_ending(begun))) + 1
    script = [*dialect.encode(begun), *letters]
    constraint = begin(dialect, budget)
    taken = follow(constraint, script)
    assert (constraint.cut_short, constraint.whole) == (True, 1)
    assert taken <= budget
    labels = [place.finding.label for place in parse(dialect, constraint).locations]
    assert len(labels) == 2 and labels[0] == "cardiomegaly"


def test_a_box_never_ends_before_it_begins(loc: LocDialect) -> None:
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
        ("100", {","}),  # nothing can follow on 1000
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
    box_2d: Box2dDialect, numbers: str, next_: set[str]
) -> None:
    """Of an image of 120 × 200, which lies from 200 to 800 on the x axis of the square."""
    begun = 'FINDINGS: A.\nLOCATIONS: [{"box_2d": [' + numbers
    notation = box_2d.notation(*SIZE)
    assert isinstance(notation, Box2dNotation)
    assert notation.in_box(begun)
    assert {
        piece for piece in "0123456789" + "," * begun[-1].isdigit() if notation.may_go_on(begun, piece)
    } == next_


def test_the_mask_allows_what_the_matcher_accepts(dialect: LocDialect) -> None:
    matcher = dialect.matcher()
    matcher.consume_tokens(dialect.encode("FINDINGS: Clear"))
    mask = allowed_tokens(matcher, dialect.vocabulary)
    assert mask.shape == (dialect.vocabulary,)
    for token in range(0, dialect.vocabulary, 13):
        assert bool(mask[token]) == (matcher.validate_tokens([token]) == 1), token
    assert mask.dtype == torch.bool


def test_a_tokenizer_without_consecutive_locations_is_refused() -> None:
    tokenizer = build_tokenizer()
    with pytest.raises(UnknownDialect, match="the model only"):
        LocDialect(tokenizer, EOS, len(tokenizer) - 1)
    made = json.loads(tokenizer.backend_tokenizer.to_str())
    made["added_tokens"] = [token for token in made["added_tokens"] if token["content"] != "<loc0100>"]
    with pytest.raises(UnknownDialect, match="1,024"):
        LocDialect(PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(made))), EOS, 4096)
