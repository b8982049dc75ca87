"""Agreement of the text of FINDINGS and IMPRESSION with the true report's.

Corpus BLEU-4 by sacrebleu (Post, WMT 2018; Papineni et al., ACL 2002), with its 13a tokenizer and exponential
smoothing, and ROUGE-L F by rouge-score (Lin, 2004), the mean over images, without stemming. Both are 0 to 1.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from emx_shared.grammar import ReportText


@dataclass(frozen=True)
class TextMetrics:
    """What one image adds.

    Attributes:
        ngrams: BLEU's counts, (10,): n-grams found and n-grams written, n from 1 to 4 of each, then the lengths of
            prediction and truth in words.
        rouge_l: the F-measure.
    """

    ngrams: tuple[int, ...]
    rouge_l: float


def text_metrics(truth: ReportText, reported: ReportText) -> TextMetrics:
    """Compare the text of two reports."""
    reference, written = _prose(truth), _prose(reported)
    counted = _bleu().sentence_score(written, [reference])
    overlap = _rouge().score(reference, written)["rougeL"].fmeasure
    return TextMetrics((*counted.counts, *counted.totals, counted.sys_len, counted.ref_len), float(overlap))


def corpus_bleu(ngrams: Iterable[float]) -> float:
    """Return the BLEU-4 of summed ``TextMetrics.ngrams``, 0 to 1."""
    counts = [round(count) for count in ngrams]
    scored = _bleu().compute_bleu(counts[:4], counts[4:8], counts[8], counts[9], smooth_method="exp")
    return float(scored.score) / 100


def _prose(report: ReportText) -> str:
    return f"{report.findings} {report.impression}".strip()


@cache
def _bleu() -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True)  # for single sentences; only their counts are used


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # takes a second to import

    return RougeScorer(["rougeL"])
