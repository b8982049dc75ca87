"""The server that a command talks to."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from explainmyxray.cli.terminal import refused

if TYPE_CHECKING:
    from explainmyxray.client import Client

Url = Annotated[
    str | None,
    typer.Option("--url", help="The server; default: EMX_URL, else http://127.0.0.1:8000", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one line for each thing")]


@contextmanager
def connected(url: str | None) -> Iterator["Client"]:
    """A client whose errors become sentences, with what to do; the API key is EMX_API_KEY."""
    from emx_shared.settings import settings
    from explainmyxray.client import (
        ApiError,
        Client,
        Forbidden,
        InvalidRequest,
        NoReport,
        StillRunning,
        Unauthenticated,
        Unavailable,
    )

    try:
        made = Client(url)
    except ValueError as error:
        raise refused(error) from None
    try:
        with made:
            yield made
    except Unauthenticated as error:
        hint = (
            "EMX_API_KEY is no key of this server."
            if settings().api_key
            else "Set EMX_API_KEY; `emx keys create` makes one."
        )
        raise refused(f"{error}\n{hint}") from None
    except Forbidden as error:
        raise refused(f"{error}\nMake one that has it: `emx keys create --scope …`") from None
    except Unavailable as error:
        hint = "" if error.status else f"\nIs it running at {made.url}? Start one with `emx up`, or name it: --url"
        raise refused(f"{error}{hint}") from None
    except InvalidRequest as error:
        details = "".join(f"\n  {one.get('where')}: {one.get('what')}" for one in error.errors)
        raise refused(f"{error}{details}") from None
    except (ApiError, NoReport, StillRunning) as error:
        raise refused(error) from None
