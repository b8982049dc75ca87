"""Reports in the vocabulary of the real Gemma 3, of 262,145 tokens."""

import re
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from transformers import PreTrainedTokenizerFast

from emx_benchmarks.trained_gemma import TOKENIZER_FILE
from emx_shared.grammar import LOC_BINS, as_prose, is_prose, sentences
from emx_worker.engine.constraint import ReportConstraint, smallest_budget
from emx_worker.model.box_decoding import Box2dDecoding, BoxDecoding, LocDecoding

EOS = frozenset({1, 106})
NOTHING = {"loc": "none", "box_2d": "[]"}

pytestmark = pytest.mark.skipif(
    not TOKENIZER_FILE.exists(), reason="Gemma 3's tokenizer isn't here: test.sh gets it with npm"
)


@pytest.fixture(scope="module", params=[LocDecoding, Box2dDecoding], ids=lambda kind: kind.name)
def decoding(request: pytest.FixtureRequest) -> BoxDecoding:
    """As for the model's 262,208 rows, and for an adapter's rows of locations after them."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZER_FILE))
    rows = 262_208
    if request.param is LocDecoding:
        tokenizer.add_tokens([f"<filler{number}>" for number in range(rows - len(tokenizer))])
        tokenizer.add_tokens([f"<loc{number:04d}>" for number in range(LOC_BINS)])
        rows += LOC_BINS
    made: BoxDecoding = request.param(tokenizer, EOS, rows)
    return made


def report(decoding: BoxDecoding, text: str) -> str:
    return f"FINDINGS: {text}\nLOCATIONS: {NOTHING[decoding.name]}\nIMPRESSION: {text}"


@pytest.mark.parametrize(
    "text",
    [
        "There is a 1.8 cm nodule (<2 cm) in the left upper lobe, approx. 3-4 mm larger; CTR 0.58 (58 %).",
        '1. "Opacité" at 20°. 2. T.B. was excluded?',
        "Größe ≥ 5 mm – it’s stable, ½ of the lung, 3×4 cm², µ, α1.",
        "Índice cardiotorácico 0,55; derrame pleural a la izquierda",
    ],
)
def test_what_radiologists_say_is_written_token_by_token(decoding: BoxDecoding, text: str) -> None:
    written = report(decoding, text)
    constraint = ReportConstraint(decoding, 1_000, decoding.notation())
    while constraint.text != written:
        rest = written[len(constraint.text) :]
        assert written.startswith(constraint.text)
        token = decoding.encode(rest)[0]
        assert constraint.allowed()[token], (constraint.text, decoding.text(token))
        constraint.take(token)
    constraint.take(min(EOS))
    assert constraint.finished
    found = decoding.notation().parse(written)
    assert found.findings == found.impression == text


def test_no_token_is_a_part_of_a_character(decoding: BoxDecoding) -> None:
    constraint = ReportConstraint(decoding, 1_000, decoding.notation())
    for token in constraint.allowed().nonzero().flatten().tolist():
        decoding.text(token)


def test_a_report_can_be_ended_after_any_token_of_it(decoding: BoxDecoding) -> None:
    tokens = decoding.encode(report(decoding, "It measures 1.8 cm (<2 cm). Opacité ½ <5"))
    for kept in range(len(tokens)):
        partial = "".join(map(decoding.text, tokens[:kept]))
        ending = decoding.encode(decoding.notation().shortest_ending(partial))
        matcher = decoding.matcher()
        assert matcher.consume_tokens([*tokens[:kept], *ending]) and matcher.is_accepting(), partial
    assert smallest_budget(decoding) < 40


def sections() -> Iterator[str]:
    """Yield the sections of Open-i's reports, as they were written."""
    with tarfile.open(Path(sysconfig.get_path("purelib")) / "torchxrayvision/data/NLMCXR_reports.tgz") as archive:
        for member in archive:
            if member.name.endswith(".xml") and (stream := archive.extractfile(member)):
                for node in ElementTree.parse(stream).getroot().iter("AbstractText"):
                    if node.get("Label") in ("FINDINGS", "IMPRESSION") and node.text:
                        yield as_prose(node.text)


def test_all_reports_of_openi_can_be_written_to_the_letter(decoding: BoxDecoding) -> None:
    texts = list(sections())
    found = [text[begin:end] for text in texts for begin, end in sentences(text)]
    refused = [one for one in found if not is_prose(one)]
    assert len(found) > 20_000
    assert len(refused) / len(found) < 0.001
    assert all(re.search("<[^=0-9 ]", one) for one in refused)  # tags
    matcher, notation = decoding.matcher(), decoding.notation()
    for text in filter(is_prose, texts):
        tokens = decoding.encode(report(decoding, text))
        assert matcher.validate_tokens(tokens) == len(tokens), text
        assert notation.parse(report(decoding, text)).findings == text
