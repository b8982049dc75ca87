"""A study of a collection before its image is prepared."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from emx_shared.contracts.findings import TERMS, Finding, Laterality

SPLITS = ("train", "validation", "test")
_OF_A_HUNDRED = {"train": 90, "validation": 5, "test": 5}
_SENTENCE = re.compile(r"[A-Z][A-Za-z0-9 ,;:()%/'-]{0,240}\.")
_LONGEST = 12
"""Sentences that the grammar allows in one section."""


class BadTable(ValueError):
    """A table can't be used; the text names the file, the row and the column."""


@dataclass(frozen=True)
class SourceStudy:
    """One image and what is known of it.

    Attributes:
        image: path below the collection's image folder.
        patient: pseudonym that decides the split; never written out.
        findings, impression: sentences that the report grammar takes.
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
        """By patient, from a hash: the same patient is in the same split in every run and every table."""
        rank = int.from_bytes(hashlib.sha256(self.patient.encode()).digest()[:8], "big") % 100
        for split, share in _OF_A_HUNDRED.items():
            if rank < share:
                return split
            rank -= share
        raise AssertionError


def term(finding: Finding, side: Laterality | None) -> str | None:
    """The vocabulary's term, or None for a sided finding without its side."""
    name = f"{finding.label} {side}" if finding.sided and side else finding.label
    return name if name in TERMS else None


def prose(sentences: Sequence[str]) -> str:
    """A section of a report: repeats and what the grammar doesn't take are left out."""
    kept = list(dict.fromkeys(sentence for sentence in sentences if _SENTENCE.fullmatch(sentence)))
    return " ".join(kept[:_LONGEST])
