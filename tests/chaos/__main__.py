"""``python -m tests.chaos``: run the chaos matrix."""

import argparse
import fnmatch
import json
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

from rich.console import Console

from tests.chaos.bench import Phase
from tests.chaos.matrix import LONG_FROM, run_matrix
from tests.chaos.phases import PHASES
from tests.chaos.stores import STORES, keep_mounts_to_this_process
from tests.chaos.system import NotReady

_SECONDS, _SECONDS_A_JOB = 600, 3
"""A run may take so long in all, and is stopped then."""

_DESCRIPTION = f"""\
Break two gateways, two couriers, two workers, Redis and the store in every way that the ledger must survive, while
clients submit, ask, cancel, erase and send batches; then check that nothing was lost.

Each row is one fault. Counted for each row and in all:

  jobs             accepted, items of batches included
  lost             without an outcome, or with a wrong one: a report thrown away, a batch that counts falsely, a
                   job missing in a list that says it is complete, a request that nobody answered for a minute
  double_outcomes  changed after they were first seen, or reported in two ways; keys that gave two jobs
  owed_webhooks    events that never came, or came under two ids
  orphans          left in open/, outbox/, erase/ or .parts/; inputs without a record; bytes of an erased patient

recovery_seconds of a row is the time from the moment at which its fault heals (the process is started again or
continues, the store answers) until the first outcome of one of the row's jobs is seen in the store after it;
recovery_p95_seconds is the 95th percentile of these over the rows, by nearest rank.

With {LONG_FROM} jobs or more, processes are started as an operator would, workers run the demo model, and each row
waits until all of its jobs have ended. With fewer, processes are forked from one that has imported everything,
workers ask a small server that gives every image one report, and some rows run at the same time.

The exit status is 1 if anything was lost, double, owed or orphaned, or if a row never recovered."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the matrix as the arguments say. Return the exit status."""
    chosen = _parser().parse_args(arguments)
    phases = _phases(chosen.phases)
    progress = Console(stderr=True)
    keep_mounts_to_this_process()
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGALRM, _interrupt)
    signal.alarm(_SECONDS + _SECONDS_A_JOB * chosen.jobs)
    began = time.monotonic()
    with progress.status("") as status:

        def say(line: str) -> None:
            status.update(line)
            if not progress.is_terminal:
                progress.print(f"{time.monotonic() - began:6.1f} s  {line}", highlight=False, soft_wrap=True)

        try:
            result = run_matrix(chosen.store, chosen.jobs, phases, chosen.seed, say)
        except KeyboardInterrupt:
            seconds = time.monotonic() - began
            progress.print(f"Interrupted after {seconds:.0f} s. Everything that was started is stopped.")
            return 130
        except NotReady as error:
            progress.print(str(error))
            return 1
    if chosen.json:
        print(json.dumps(result.as_json(), indent=1))
    else:
        Console().print(result.as_table())
    return 0 if result.holds else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Rows: " + ", ".join(phase.name for phase in PHASES),
    )
    parser.add_argument("--jobs", type=int, default=50, help="jobs at least, shared among the rows (default: 50)")
    parser.add_argument("--store", choices=sorted(STORES), default="directory", help="default: directory")
    parser.add_argument("--phases", default="*", help='rows to run, such as "kill-*,store-full" (default: all)')
    parser.add_argument("--seed", type=int, default=17, help="of images, pauses, victims and failing webhooks")
    parser.add_argument("--json", action="store_true", help="print JSON; progress goes to standard error")
    return parser


def _phases(wanted: str) -> list[Phase]:
    patterns = [pattern.strip() for pattern in wanted.split(",")]
    unknown = [each for each in patterns if not fnmatch.filter([phase.name for phase in PHASES], each)]
    if unknown:
        raise SystemExit(
            f"No row is called {', '.join(unknown)}. Rows: {', '.join(phase.name for phase in PHASES)}"
        )
    return [phase for phase in PHASES if any(fnmatch.fnmatchcase(phase.name, each) for each in patterns)]


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
