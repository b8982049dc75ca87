"""The JSON of a run, which is a contract."""

from tests.chaos.bench import Row
from tests.chaos.report import Result


def result(*rows: Row) -> Result:
    return Result("directory", "the demo model", 1.0, rows)


def test_the_json_has_the_sums_and_the_rows() -> None:
    rows = (
        Row("one", jobs=3, lost=1, recovery_seconds=2.0, notes=["x"]),
        Row("two", jobs=4, owed_webhooks=2, recovery_seconds=1.0),
    )
    found = result(*rows).as_json()
    sums = {name: found[name] for name in ("jobs", "lost", "double_outcomes", "owed_webhooks", "orphans")}
    assert sums == {"jobs": 7, "lost": 1, "double_outcomes": 0, "owed_webhooks": 2, "orphans": 0}
    assert found["recovery_p95_seconds"] == 2.0
    assert {
        "name",
        "jobs",
        "lost",
        "double_outcomes",
        "owed_webhooks",
        "orphans",
        "recovery_seconds",
        "notes",
    } <= set(found["rows"][0])


def test_the_95th_percentile_is_a_row_s_own_figure() -> None:
    rows = [Row(f"{number}", recovery_seconds=float(number)) for number in range(1, 21)]
    assert result(*rows).recovery_p95_seconds == 19.0
    assert result().recovery_p95_seconds is None


def test_a_run_holds_if_every_row_holds_and_recovered() -> None:
    well, never = Row("well", recovery_seconds=0.1), Row("never")
    assert result(well, Row("skipped", skipped=True)).holds
    assert not result(well, never).holds
    for kind in ("lost", "double_outcomes", "owed_webhooks", "orphans"):
        assert not result(well, Row("bad", recovery_seconds=0.1, **{kind: 1})).holds  # type: ignore[arg-type]
