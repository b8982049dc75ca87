"""``emx admin``: what an operator does with a server's store. It works on the store, not over HTTP."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from explainmyxray.cli.server_connection import Json
from explainmyxray.cli.terminal import console, errors, print_line, refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from emx_shared.ledger import Ledger
    from emx_shared.ledger.scrub import Fault, FaultKind

_HOUR = 3600.0
_NAMED = 10
"""Objects of a kind whose keys are printed."""

admin = typer.Typer(
    no_args_is_help=True,
    help="Look after a server's store. The store is EMX_STORE; `emx up` keeps its store in data/store.",
)


@admin.callback()
def _group() -> None:
    """Keep ``check`` a command of its own while there is no other."""


@admin.command()
def check(
    mend: Annotated[bool, typer.Option("--mend", help="Mend what can be mended; without it, only look")] = False,
    older_than: Annotated[
        float, typer.Option(min=0, help="Seconds: what is younger is left to the process that is writing it")
    ] = _HOUR,
    json: Json = False,
) -> None:
    """Look at every object of the store, and list what is damaged, stopped half-way or left over.

    It runs beside a working service. The exit code is 1 if something is found that isn't mended, except for what a
    newer version wrote.
    """
    found = Counter["FaultKind"]()
    left = Counter["FaultKind"]()
    keys: dict[FaultKind, list[str]] = {}
    with _ledger() as ledger, _progress(json) as looked_at:
        from emx_shared.ledger.scrub import examine

        for fault in examine(ledger, older_than, looked_at):
            mended = mend and _mend(fault)
            found[fault.kind] += 1
            left[fault.kind] += not mended
            if json:
                code, todo = fault.kind.code, fault.kind.todo
                print_line(
                    {"fault": code, "key": fault.key, "mended": mended, "what": fault.kind.what, "todo": todo}
                )
            elif len(known := keys.setdefault(fault.kind, [])) < _NAMED:
                known.append(fault.key)
    if not json:
        _print_table(found, left, keys, mend)
    if any(count for kind, count in left.items() if kind.is_fault):
        raise typer.Exit(1)


@contextmanager
def _ledger() -> "Iterator[Ledger]":
    """Open the ledger of EMX_STORE without writing to it. Raises typer.Exit."""
    from emx_shared.settings import settings

    chosen = settings()
    try:
        from emx_shared.ledger.opening import look_at_ledger
        from emx_shared.store import StoreError
        from emx_shared.store.selection import folder_of
    except ImportError as error:
        raise refused(f"This needs more packages ({error}): pip install 'explainmyxray[service]'") from None
    if (folder := folder_of(chosen.store)) and not folder.is_dir():
        raise refused(f"There is no store at {folder}. Name the server's store with EMX_STORE.")
    try:
        yield look_at_ledger(chosen)
    except StoreError as error:
        raise refused(f"{error} The store is {chosen.store}. Name another with EMX_STORE.") from None


@contextmanager
def _progress(json: bool) -> "Iterator[Callable[[int], object]]":
    """Show how many objects were looked at; how many there are, nobody knows before."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("looking"), BarColumn(), TextColumn("{task.completed:,.0f} objects"), TimeElapsedColumn()
    with Progress(*columns, console=errors, transient=True, disable=json) as progress:
        task = progress.add_task("", total=None)
        yield lambda more: progress.advance(task, more)


def _mend(fault: "Fault") -> bool:
    """Mend a fault, if it can be. Return whether it is mended."""
    from redis.exceptions import RedisError

    from emx_shared.ledger.records import UnreadableRecord
    from emx_shared.store import NoSuchObject, StoreError

    if fault.mend is None:
        return False
    try:
        fault.mend()
    except RedisError:
        errors.print(
            f"[yellow]{escape(fault.key)}: Redis is needed to mend this, and is unavailable (EMX_REDIS).[/]"
        )
        return False
    except (UnreadableRecord, NoSuchObject):
        errors.print(f"[yellow]{escape(fault.key)}: something that it belongs to can't be read.[/]")
        return False
    except StoreError as error:
        errors.print(f"[yellow]{escape(fault.key)}: {escape(str(error))}. Try again.[/]")
        return False
    return True


def _print_table(
    found: "Counter[FaultKind]", left: "Counter[FaultKind]", keys: "dict[FaultKind, list[str]]", mend: bool
) -> None:
    from rich.table import Table

    if not found:
        console.print("[green]Nothing is wrong in this store.[/]")
        return
    table = Table("found", "mended", "fault", "what it is", "what mending does, or what to do", show_lines=True)
    for kind, count in found.items():
        table.add_row(str(count), str(count - left[kind]), f"[bold]{kind.code}[/]", kind.what, kind.todo)
    console.print(table)
    for kind, known in keys.items():
        for key in known:
            console.print(f"[bold]{kind.code}[/] {escape(key)}", highlight=False, soft_wrap=True)
        if found[kind] > len(known):
            console.print(f"[bold]{kind.code}[/] and {found[kind] - len(known)} more: --json names all")
    if not mend:
        console.print("Nothing was changed. To mend what can be mended: emx admin check --mend")
