"""``emx data``: tables and texts to train with."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

import typer
from rich.markup import escape

from explainmyxray.cli.server_connection import Json
from explainmyxray.cli.terminal import console, print_line, refused

data = typer.Typer(no_args_is_help=True, help="Look at data before a model is trained with it.")

_SHOWN = 50
"""Refused sentences that are listed."""


@data.callback()
def _group() -> None:
    """Keep ``check-text`` a command of its own while there is no other."""


@data.command("check-text")
def check_text(
    file: Annotated[
        Path, typer.Argument(help="UTF-8 text with one sentence of a report a line; - for standard input")
    ],
    json: Json = False,
) -> None:
    """Tell which sentences a report can hold, word for word, and which it can't.

    Reports hold what is written in Latin script: decimals, units, quotes, accents, Greek letters. They hold no
    braces, and "<" only before a number.

    Training leaves out a row that has anything else, so that a few refused sentences need no care. The exit code
    is 0 even then.
    """
    from emx_shared.grammar import as_prose, first_refused, is_prose

    count = accepted = 0
    wrong: list[dict[str, object]] = []
    with _lines(file) as lines:
        for number, line in enumerate(lines, start=1):
            text = as_prose(line)
            if not text:
                continue
            count += 1
            if is_prose(text):
                accepted += 1
            elif len(wrong) < _SHOWN:
                wrong.append({"line": number, "character": first_refused(text), "text": text})
    if json:
        print_line({"sentences": count, "accepted": accepted, "refused": wrong})
        return
    left = count - accepted
    share = f" ({left / count:.2%})" if left else ""
    console.print(f"{count:,} sentences: {accepted:,} accepted, {left:,} refused{share}.")
    for each in wrong:
        console.print(f"line {each['line']}: {escape(repr(each['character']))} in: {escape(str(each['text']))}")
    if left > len(wrong):
        console.print(f"… and {left - len(wrong):,} more.")


@contextmanager
def _lines(file: Path) -> Iterator[IO[str]]:
    try:
        if str(file) == "-":
            sys.stdin.reconfigure(encoding="utf-8-sig")  # type: ignore[union-attr]
            yield sys.stdin
        else:
            with file.open(encoding="utf-8-sig") as lines:
                yield lines
    except OSError as error:
        raise refused(f"{file} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise refused(f"{file} isn't UTF-8 text. Convert it: iconv -f latin1 -t utf-8") from None
