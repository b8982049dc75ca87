"""``emx keys``: who may use a server. It works on the server's store, not over HTTP."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from explainmyxray.cli.server_connection import Json
from explainmyxray.cli.terminal import console, errors, print_line, refused

if TYPE_CHECKING:
    from emx_shared.api_keys import ApiKey, KeyRing


class ScopeName(StrEnum):
    """The scopes in emx_shared.api_keys, without importing it."""

    SUBMIT = "submit"
    READ = "read"
    ADMIN = "admin"


keys = typer.Typer(
    no_args_is_help=True,
    help="Create, list and revoke API keys, which are kept in the server's store. Once a key exists, every "
    "request needs a key.\n\n"
    "The store is EMX_STORE or --store. `emx up` keeps its store in data/store: EMX_STORE=file:data/store, in the "
    "folder where it was started.",
)

Store = Annotated[
    str | None,
    typer.Option(help="file:DIR or s3+http(s)://HOST/BUCKET; default: EMX_STORE", show_default=False),
]


@keys.command()
def create(
    tenant: Annotated[str, typer.Option(help="Tenant whose jobs the key can reach")] = "default",
    scope: Annotated[
        list[ScopeName] | None,
        typer.Option(help="What the key allows; can be repeated. Default: every scope", show_default=False),
    ] = None,
    name: Annotated[str, typer.Option(help="Your name for the key")] = "",
    store: Store = None,
    json: Json = False,
) -> None:
    """Create a key and print it. It can't be shown again."""
    from emx_shared.api_keys import SCOPES

    with _ring(store, new=True) as ring:
        key, text = ring.create(tenant, tuple(each.value for each in scope) if scope else SCOPES, name)
    if json:
        print_line({**_public(key), "key": text})
        return
    print(text)
    errors.print(f"Key {key.id} of tenant {key.tenant}: {', '.join(key.scopes)}. It can't be shown again.")
    errors.print("Use it as EMX_API_KEY=…, or in the header Authorization: Bearer …")


@keys.command("list")
def list_keys(store: Store = None, json: Json = False) -> None:
    """List all keys, including revoked keys."""
    from rich.table import Table

    with _ring(store) as ring:
        found = ring.list()
    if json:
        for key in found:
            print_line(_public(key))
        return
    table = Table("id", "tenant", "scopes", "name", "created", "revoked")
    for key in found:
        revoked = f"[red]{key.revoked_at:%Y-%m-%d %H:%M}[/]" if key.revoked_at else ""
        created = f"{key.created_at:%Y-%m-%d %H:%M}"
        table.add_row(key.id, key.tenant, " ".join(key.scopes), escape(key.name), created, revoked)
    console.print(table if found else "There are no keys: everyone on this machine may do everything.")


@keys.command()
def revoke(
    id: Annotated[str, typer.Argument(help="The key's id, 12 letters and digits", show_default=False)],
    store: Store = None,
    json: Json = False,
) -> None:
    """Revoke a key. Gateways refuse it within five seconds."""
    with _ring(store) as ring:
        key = ring.revoke(id)
    print_line(_public(key)) if json else console.print(f"Key {key.id} of tenant {key.tenant} is revoked.")


@contextmanager
def _ring(store: str | None, new: bool = False) -> "Iterator[KeyRing]":
    """Open the keys of a store; ``new`` makes a store that doesn't exist. Raises typer.Exit."""
    from emx_shared.api_keys import BadKeyRequest, KeyRing
    from emx_shared.settings import settings
    from emx_shared.store import StoreError, open_store
    from emx_shared.store.selection import folder_of

    chosen = settings().model_copy(update={"store": store} if store else {})
    if not new and (folder := folder_of(chosen.store)) and not folder.is_dir():
        raise refused(f"There is no store at {folder}. Name the server's store with EMX_STORE or --store.")
    try:
        yield KeyRing(open_store(chosen))
    except BadKeyRequest as error:
        raise refused(error) from None
    except ImportError as error:
        raise refused(f"This store needs more packages ({error}): pip install 'explainmyxray[service]'") from None
    except StoreError as error:
        raise refused(f"{error} The store is {chosen.store}. Name another with EMX_STORE or --store.") from None


def _public(key: "ApiKey") -> dict[str, object]:
    return key.model_dump(mode="json", exclude={"digest"})
