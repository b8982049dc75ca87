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
    typer.Option(
        "--url", help="Address of the server; default: EMX_URL, else http://127.0.0.1:8000", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one line for each result")]


@contextmanager
def connected(url: str | None) -> Iterator["Client"]:
    """Provide a client whose errors are printed as sentences that say what to do.

    The API key is EMX_API_KEY.

    Raises:
        typer.Exit: The server refused a request, or is unavailable.
    """
    from emx_shared.settings import settings
    from explainmyxray.client import (
        ApiError,
        Client,
        Forbidden,
        InvalidConnection,
        InvalidRequest,
        NoReport,
        StillRunning,
        Unauthenticated,
        Unavailable,
    )

    try:
        client = Client(url)
    except InvalidConnection as error:
        raise refused(error) from None
    try:
        with client:
            yield client
    except Unauthenticated as error:
        hint = (
            "EMX_API_KEY isn't a valid key of this server. `emx keys list` shows its keys."
            if settings().api_key
            else "Set EMX_API_KEY to a key of this server. `emx keys create` makes a key."
        )
        raise refused(f"{error}\n{hint}") from None
    except Forbidden as error:
        raise refused(f"{error}\nMake a key with this scope: `emx keys create --scope …`") from None
    except Unavailable as error:
        hint = (
            ""
            if error.status
            else f"\nIs a server running at {client.url}? Start one with `emx up`, or name another: --url"
        )
        raise refused(f"{error}{hint}") from None
    except InvalidRequest as error:
        details = "".join(f"\n  {field.get('where')}: {field.get('what')}" for field in error.errors)
        raise refused(f"{error}{details}") from None
    except (ApiError, NoReport, StillRunning) as error:
        raise refused(error) from None
