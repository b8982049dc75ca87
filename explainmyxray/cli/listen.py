"""``emx listen``: webhooks on a developer's machine, which no server can reach."""

import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from explainmyxray.cli.server_connection import Json, Url, connected
from explainmyxray.cli.terminal import console, errors, print_line

if TYPE_CHECKING:
    import httpx

    from explainmyxray.client import SignedEvent


def listen(
    forward: Annotated[
        str | None,
        typer.Option(
            help="POST every event to this address, such as http://localhost:3000/hook", show_default=False
        ),
    ] = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Print every webhook from now on, signed as an endpoint would receive it, until Ctrl-C.

    The connection is opened again when it breaks.
    """
    from httpx import Client

    if forward and not forward.startswith(("http://", "https://")):
        raise typer.BadParameter("The address must begin with http:// or https://", param_hint="--forward")
    with connected(url) as client, Client(timeout=10) as local:
        client.ready()  # fails now if there is no server, or another one
        errors.print(f"Listening to {client.url}. Ctrl-C stops.")
        try:
            for event in client.webhooks.listen():
                answer = _post(local, forward, event) if forward else None
                if json:
                    print_line({**event.model_dump(), "forwarded": answer})
                else:
                    arrow = f" → {answer}" if answer else ""
                    line = f"{time.strftime('%H:%M:%S')} {event.type} {event.subject}{arrow}"
                    console.print(escape(line), soft_wrap=True, highlight=False)
        except KeyboardInterrupt:
            errors.print("Stopped.")


def _post(local: "httpx.Client", forward: str, event: "SignedEvent") -> str:
    """Forward an event, and return the HTTP status or why there was no answer."""
    from httpx import HTTPError, InvalidURL

    try:
        return str(local.post(forward, content=event.body.encode(), headers=event.headers).status_code)
    except (HTTPError, InvalidURL) as error:
        return f"no answer ({type(error).__name__})"
