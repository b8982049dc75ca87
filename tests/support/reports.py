"""Reports to render."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import pytest

from emx_shared.contracts.findings import FINDINGS
from emx_shared.contracts.report import Box, ImageFacts, Location, ModelProvenance, Report, Timings, TokenCounts


def _report(
    size: tuple[int, int], boxes: Iterable[tuple[float, float, float, float]] = (), **parts: Any
) -> Report:
    """A report on an image of ``size`` with a finding for each box (pixels); ``parts`` replace the rest."""
    width, height = size
    places = tuple(
        Location(
            label=finding.label,
            code=finding.code,
            laterality="left" if finding.sided else None,
            box=Box(xmin=left, ymin=top, xmax=right, ymax=bottom),
            box_normalised=Box(xmin=left / width, ymin=top / height, xmax=right / width, ymax=bottom / height),
            colour=finding.colour,
            probability=0.82,
        )
        for finding, (left, top, right, bottom) in zip(FINDINGS, boxes, strict=False)
    )
    whole: dict[str, Any] = {
        "findings": "The heart is enlarged.",
        "impression": "Cardiomegaly.",
        "locations": places,
        "image": ImageFacts(width=width, height=height, media_type="image/png", sha256="0" * 64),
        "model": _model(),
        "timings": Timings(decode=0.01, prefill=0.5, generate=1.25),
        "tokens": TokenCounts(prompt=312, generated=140),
        "created_at": datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC),
    }
    return Report(**(whole | parts))


def _model(**parts: Any) -> ModelProvenance:
    whole = {"name": "some/model", "revision": "abc123", "quantisation": "int4", "engine": "emx", "dialect": "loc"}
    return ModelProvenance(**({"demo": False} | whole | parts))


@pytest.fixture(scope="session")
def make_report() -> Callable[..., Report]:
    return _report


@pytest.fixture(scope="session")
def make_model() -> Callable[..., ModelProvenance]:
    return _model
