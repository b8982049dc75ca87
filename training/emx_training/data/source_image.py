"""An image of a collection before its pixels are prepared."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from emx_shared.contracts.findings import TERMS, Finding, Laterality
from emx_shared.grammar import as_prose, is_prose

SPLITS = ("train", "validation", "test")
_PERCENT = {"train": 90, "validation": 5, "test": 5}


@dataclass(frozen=True)
class SourceImage:
    """One image with what its collection reports about it.

    Attributes:
        id: unique in the collection; the prepared file is named after it.
        image: path below the collection's image folder.
        patient: pseudonym that decides the split; tables have its digest.
        findings, impression: sections that a report can hold.
        terms: findings with their sides, as far as both are known.
    """

    id: str
    image: str
    patient: str
    findings: str
    impression: str
    terms: tuple[str, ...]

    @property
    def split(self) -> str:
        """Return the patient's split."""
        return split_of(self.patient)


def split_of(patient: str) -> str:
    """Return a patient's split, from a hash: the same in every run, every table and both phases."""
    rank = int.from_bytes(hashlib.sha256(patient.encode()).digest()[:8], "big") % 100
    for split, share in _PERCENT.items():
        if rank < share:
            return split
        rank -= share
    raise AssertionError


def term(finding: Finding, side: Laterality | None) -> str | None:
    """Return the vocabulary's term for a finding, or None if the finding needs a side and ``side`` is None."""
    name = f"{finding.label} {side}" if finding.sided and side else finding.label
    return name if name in TERMS else None


def prose(sentences: Sequence[str]) -> str:
    """Join sentences into a section of a report, without repeats and without those that no report can hold."""
    return " ".join(dict.fromkeys(sentence for sentence in map(as_prose, sentences) if is_prose(sentence)))
