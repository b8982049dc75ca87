"""Pages of a tenant's reviewed jobs, and how far readers agree with the reports."""

import logging
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from emx_gateway.feedback_schemas import Feedback, FeedbackAgreement, FeedbackList, FindingAgreement
from emx_gateway.http.problems import Problem, invalid_fields
from emx_gateway.services.feedback import feedback_resource
from emx_shared.contracts.findings import BY_LABEL
from emx_shared.ledger import Ledger, reviewed_jobs
from emx_shared.ledger.records import FeedbackVersion, JobRecord, UnreadableRecord, Verdict

log = logging.getLogger("emx.gateway")

LOOKED_AT = 500
"""Jobs that are looked at for one page: where few of them match, it is short, and has a cursor all the same."""


@dataclass(frozen=True)
class FeedbackQuery:
    """Which feedback is listed; None admits all.

    Attributes:
        label: a finding that the newest version mentions, with whatever verdict.
        verdict: of the newest version.
    """

    label: str | None = None
    verdict: Verdict | None = None

    def admits(self, version: FeedbackVersion) -> bool:
        """Return whether a version matches."""
        labels = {each.label for each in version.locations}
        return self.verdict in (None, version.verdict) and (self.label is None or self.label in labels)


def feedback_page(
    ledger: Ledger, tenant: str, wanted: FeedbackQuery, limit: int, cursor: str | None
) -> FeedbackList:
    """Return a page of the newest versions.

    Args:
        ledger: where they are.
        tenant: whose they are.
        wanted: which.
        limit: most of the page.
        cursor: ``next_cursor`` of the page before; None for the first page.

    Raises:
        Problem: 400 for an invalid cursor, 422 for a label that no finding has.
    """
    _check(wanted, cursor)
    items, unreadable, next_cursor = list[Feedback](), list[str](), None
    places = reviewed_jobs(ledger, tenant, cursor)
    for looked_at, id in enumerate(places, start=1):
        try:
            found = newest_feedback(ledger, tenant, id)
            if found and wanted.admits(found[1]):
                items.append(feedback_resource(id, found[1]))
        except UnreadableRecord:
            unreadable.append(id)
        if len(items) == limit or looked_at == LOOKED_AT:
            next_cursor = id if next(places, None) else None
            break
    return FeedbackList(items=items, unreadable=unreadable, next_cursor=next_cursor)


def all_newest_feedback(ledger: Ledger, tenant: str) -> Iterator[tuple[JobRecord, FeedbackVersion]]:
    """Yield each reviewed job of a tenant with the newest version. What can't be read is logged by its id."""
    for id in reviewed_jobs(ledger, tenant):
        try:
            found = newest_feedback(ledger, tenant, id)
        except UnreadableRecord:
            log.error("the feedback of job %s can't be read: emx admin check", id)
            continue
        if found:
            yield found


def newest_feedback(ledger: Ledger, tenant: str, id: str) -> tuple[JobRecord, FeedbackVersion] | None:
    """Return a job and its newest version; None without feedback, or if the job is gone or another tenant's."""
    feedback, job = ledger.feedback(id), ledger.job(id)
    if feedback is None or feedback.newest is None or job is None or job.tenant != tenant:
        return None
    return job, feedback.newest


def agreement(ledger: Ledger, tenant: str) -> FeedbackAgreement:
    """Count verdicts, of reports and for each finding."""
    verdicts, counts = Counter[str](), Counter[tuple[str, str]]()
    for _, version in all_newest_feedback(ledger, tenant):
        verdicts[version.verdict] += 1
        counts.update((each.reported or each.label, each.verdict) for each in version.locations)
    mentioned = {label for label, _ in counts}
    labels = [label for label in BY_LABEL if label in mentioned] + sorted(mentioned - BY_LABEL.keys())
    return FeedbackAgreement(
        jobs=verdicts.total(),
        agree=verdicts["agree"],
        disagree=verdicts["disagree"],
        findings=[
            FindingAgreement(
                label=label,
                agreed=counts[label, "agreed"],
                corrected=counts[label, "corrected"],
                rejected=counts[label, "rejected"],
                added=counts[label, "added"],
            )
            for label in labels
        ],
    )


def _check(wanted: FeedbackQuery, cursor: str | None) -> None:
    if wanted.label is not None and wanted.label not in BY_LABEL:
        what = "Must be a label of the finding vocabulary"
        raise invalid_fields([{"where": "query.label", "what": what}])
    try:
        valid = cursor is None or str(uuid.UUID(cursor)) == cursor
    except ValueError:
        valid = False
    if not valid:
        raise Problem(400, "bad-cursor", "Invalid cursor. Omit `cursor` to start at the first page.")
