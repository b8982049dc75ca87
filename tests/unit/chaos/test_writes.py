"""Named writes, and what the matrix makes of the ledger's keys."""

import pytest

from emx_shared.contracts.states import JobState
from emx_shared.ledger import object_keys
from tests.chaos.phases import PHASES
from tests.chaos.writes import name_of, points


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (object_keys.open_marker("a"), "open"),
        (object_keys.group("default", "patient", "P") + "a", "group"),
        (object_keys.job_input("a", "0" * 64), "input"),
        (object_keys.record("a"), "record"),
        (object_keys.outcome("a"), "outcome"),
        (object_keys.feedback("a"), "feedback"),
        (object_keys.feedback_marker("default", "a"), "feedback-marker"),
        (object_keys.outbox("a"), "outbox"),
        (object_keys.delivery("a"), "delivery"),
        (object_keys.erasing("a"), "erasing"),
        (object_keys.upload("default", "a"), "upload"),
        (object_keys.used_upload("default", "a"), "used-upload"),
        (object_keys.page("a", "n", 3), "page"),
        (object_keys.batch_input("a", "n", "0" * 64), "batch-input"),
        (object_keys.unread_batch("default", "a"), "unread"),
        (object_keys.cursor("a"), "cursor"),
        (object_keys.paused("a"), "paused"),
        (object_keys.resumed("a"), "resumed"),
        (object_keys.done_marker("a", 0, 7, JobState.FAILED), "done"),
        ("probe/a", None),
        (object_keys.FORMAT, None),
    ],
)
def test_each_key_has_the_name_of_its_write(key: str, name: str | None) -> None:
    assert name_of(key) == name


def test_there_is_a_point_on_each_side_of_a_write() -> None:
    assert [str(point) for point in points(("write", "open"))] == ["before-write-open", "after-write-open"]


def test_every_row_has_a_name_of_its_own() -> None:
    names = [phase.name for phase in PHASES]
    assert len(set(names)) == len(names)
