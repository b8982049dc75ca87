"""What became of one file of a run."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from explainmyxray.cli.runs.run_state import FileState

if TYPE_CHECKING:
    from emx_shared.contracts.report import Report
    from explainmyxray.client import BatchResult

NOT_READ = "not read"
"""State of a file that was not submitted, or whose result hasn't come."""


@dataclass(frozen=True)
class RunResult:
    """A file with its report, or with the reason why it has none.

    Attributes:
        name: The file's name, with its folders.
        state: The job's state; ``not read`` without a job.
        job: Id of the job.
        report: The report, if the job succeeded.
        reason: Why there is no report, for people; empty if there is one.
        pending: Whether its result is still to come.
    """

    name: str
    state: str
    job: str | None = None
    report: "Report | None" = None
    reason: str = ""
    pending: bool = False


def result_of(file: FileState) -> RunResult:
    """Return what is known of a run's file."""
    from explainmyxray.client import BatchResult
    from explainmyxray.client.resources import read_json

    if file.problem:
        return RunResult(file.name, NOT_READ, reason=file.problem)
    if file.result is None:
        why = "There is no result yet. Run the command again to continue."
        return RunResult(file.name, NOT_READ, reason=why, pending=True)
    return named_result(file.name, read_json(BatchResult, file.result.encode()))


def named_result(name: str, result: "BatchResult") -> RunResult:
    """Return the result of a batch's row as that of a file."""
    reason = ""
    if result.report is None:
        reason = result.failure.message if result.failure else f"The job was {result.state}."
    return RunResult(name, result.state, result.id, result.report, reason)
