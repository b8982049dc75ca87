"""What a reader sent about a report: validated against the report, and shown again."""

from collections.abc import Iterator

from emx_gateway import feedback_schemas as schemas
from emx_gateway.feedback_schemas import DrawnBox, LocationFeedback, NewFeedback
from emx_gateway.http.problems import invalid_fields
from emx_shared.contracts.findings import BY_LABEL
from emx_shared.contracts.report import Box, ImageFacts, Location, Report
from emx_shared.ledger import Ledger
from emx_shared.ledger.records import FeedbackVersion, ReviewedLocation

Faults = list[dict[str, str]]


def feedback_version(ledger: Ledger, report: Report, sent: NewFeedback) -> FeedbackVersion:
    """Return the version that a reader's feedback makes, reviewed now by the store's clock.

    Raises:
        Problem: 422 that names each field which doesn't fit the report or the finding vocabulary.
    """
    faults = list(_faults(report, sent))
    if faults:
        raise invalid_fields([{"where": f"body.locations.{where}", "what": what} for where, what in faults])
    return FeedbackVersion(
        version=sent.after + 1,
        reviewed_at=ledger.now(),
        reviewer=sent.reviewer,
        verdict=sent.verdict,
        comment=sent.comment,
        locations=tuple(_reviewed(report, each) for each in sent.locations),
    )


def feedback_resource(job: str, version: FeedbackVersion) -> schemas.Feedback:
    """Return a version of a job's feedback as the API shows it."""
    return schemas.Feedback(
        job=job,
        version=version.version,
        reviewed_at=version.reviewed_at,
        reviewer=version.reviewer,
        verdict=version.verdict,
        comment=version.comment,
        locations=[
            schemas.ReviewedLocation(
                of=each.of,
                verdict=each.verdict,
                label=each.label,
                code=each.code,
                laterality=each.laterality,
                box=each.box,
                box_normalised=each.box_normalised,
                colour=each.colour,
            )
            for each in version.locations
        ],
    )


def feedback_summary(ledger: Ledger, job: str) -> schemas.FeedbackSummary | None:
    """Return a job's newest feedback in short; None if there is none, or it can't be read."""
    feedback = ledger.if_readable(ledger.feedback, job)
    newest = feedback.newest if feedback else None
    if newest is None:
        return None
    return schemas.FeedbackSummary(
        version=newest.version,
        reviewed_at=newest.reviewed_at,
        reviewer=newest.reviewer,
        verdict=newest.verdict,
    )


def _faults(report: Report, sent: NewFeedback) -> Iterator[tuple[str, str]]:
    """Yield what doesn't fit: where, below ``locations``, and what."""
    seen = set[int]()
    for number, each in enumerate(sent.locations):
        if (each.of is None) != (each.verdict == "added"):
            yield f"{number}.of", "Must be null exactly for an added location"
        elif each.of is not None and each.of >= len(report.locations):
            yield f"{number}.of", f"The report has {len(report.locations)} locations, numbered from 0"
        elif each.of in seen:
            yield f"{number}.of", "Two entries are about this location"
        elif each.of is not None and each.verdict in ("agreed", "rejected"):
            seen.add(each.of)
            for field in _differing(each, report.locations[each.of]):
                yield f"{number}.{field}", "Must be the report's, or left out; to change it, send `corrected`"
        else:
            seen |= set() if each.of is None else {each.of}
            for field, what in _own_faults(each, report.image):
                yield f"{number}.{field}", what


def _differing(sent: LocationFeedback, reported: Location) -> Iterator[str]:
    """Yield the fields that were sent and aren't the report's. Null leaves out a label, a box, and both's side."""
    if sent.label is not None and sent.label != reported.label:
        yield "label"
    said = "laterality" in sent.model_fields_set and (sent.label is not None or sent.laterality is not None)
    if said and sent.laterality != reported.laterality:
        yield "laterality"
    if sent.box is not None and _box(sent.box) != reported.box:
        yield "box"


def _own_faults(sent: LocationFeedback, image: ImageFacts) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a corrected or added location: field and text."""
    finding = BY_LABEL.get(sent.label or "")
    if finding is None:
        yield "label", "Must be a label of the finding vocabulary"
    elif finding.sided != (sent.laterality is not None):
        yield "laterality", "Must be left or right" if finding.sided else "Must be null: the finding has no side"
    box = sent.box
    if box is None:
        yield "box", "Field required for a corrected or added location"
    elif not (0 <= box.xmin < box.xmax <= image.width and 0 <= box.ymin < box.ymax <= image.height):
        yield (
            "box",
            f"Must lie within the upright image of {image.width} × {image.height} pixels, with xmin < xmax and "
            "ymin < ymax",
        )


def _reviewed(report: Report, sent: LocationFeedback) -> ReviewedLocation:
    reported = None if sent.of is None else report.locations[sent.of]
    if reported and sent.verdict in ("agreed", "rejected"):
        return ReviewedLocation(
            of=sent.of,
            verdict=sent.verdict,
            label=reported.label,
            code=reported.code,
            laterality=reported.laterality,
            box=reported.box,
            box_normalised=reported.box_normalised,
            colour=reported.colour,
            reported=reported.label,
        )
    assert sent.label is not None and sent.box is not None
    finding, box, image = BY_LABEL[sent.label], sent.box, report.image
    return ReviewedLocation(
        of=sent.of,
        verdict=sent.verdict,
        label=finding.label,
        code=finding.code,
        laterality=sent.laterality,
        box=_box(box),
        box_normalised=Box(
            xmin=box.xmin / image.width,
            ymin=box.ymin / image.height,
            xmax=box.xmax / image.width,
            ymax=box.ymax / image.height,
        ),
        colour=finding.colour,
        reported=reported.label if reported else None,
    )


def _box(sent: DrawnBox) -> Box:
    return Box(xmin=sent.xmin, ymin=sent.ymin, xmax=sent.xmax, ymax=sent.ymax)
