"""``emx keys``: who may use a server. It works on the server's store, not over HTTP."""

import itertools
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from explainmyxray.cli.server_connection import Json
from explainmyxray.cli.terminal import console, errors, print_line, refused

if TYPE_CHECKING:
    from emx_shared.api_keys import ApiKey, KeyRing
    from emx_shared.settings import Settings
    from emx_shared.store import Store as ObjectStore


_COUNTED = 10_000
"""Jobs from before the first key that are counted."""

_CONNECTIONS = 16
"""Records that are read at a time."""


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
    adopt: Annotated[
        bool | None,
        typer.Option(
            "--adopt/--no-adopt",
            help="Of the first key: whether its tenant gets the jobs from before, which were made without a key. "
            "Default: ask",
            show_default=False,
        ),
    ] = None,
    store: Store = None,
    json: Json = False,
) -> None:
    """Create a key and print it. It can't be shown again.

    From the first key on, every request needs a key. `emx keys clear` returns to a server without keys.
    """
    from emx_shared.api_keys import SCOPES

    with _keys(store, new=True) as (ring, objects):
        adopted = _announce_first(objects, tenant, adopt) if not ring.any() else False
        allowed = tuple(each.value for each in scope) if scope else SCOPES
        key, text = ring.create(tenant, allowed, name, adopt_keyless=adopted)  # type: ignore[arg-type]
        _note(store, "key.create", key.tenant, key.id)
    if json:
        print_line({**_public(key), "key": text})
        return
    print(text)
    errors.print(f"Key {key.id} of tenant {key.tenant}: {', '.join(key.scopes)}. It can't be shown again.")
    errors.print("Use it as EMX_API_KEY=…, or in the header Authorization: Bearer …")


def _announce_first(objects: "ObjectStore", tenant: str, adopt: bool | None) -> bool:
    """Say what the first key of a server changes. Return whether its tenant gets the jobs from before."""
    from emx_shared.api_keys import KEYLESS_TENANT

    errors.print(
        "This is the server's first key. From now on every request needs a key: the workstation asks for it, and "
        "`emx` and the clients take it from EMX_API_KEY. `emx keys clear` returns to a server without keys."
    )
    of_tenant = _jobs_by_tenant(objects)
    earlier = of_tenant[KEYLESS_TENANT]
    if not earlier:
        return False
    jobs = f"{earlier} jobs and batches from before, which were made without a key"
    if tenant == KEYLESS_TENANT or of_tenant[tenant]:
        errors.print(f"There are {jobs}. They belong to tenant {KEYLESS_TENANT}, whose keys reach them.")
        return False
    if adopt is None:
        adopt = _ask_whether_to_adopt(jobs, tenant)
    if not adopt:
        errors.print(f"They stay with tenant {KEYLESS_TENANT}: `emx keys create` makes a key that reaches them.")
    return adopt


def _ask_whether_to_adopt(jobs: str, tenant: str) -> bool:
    try:
        return typer.confirm(f"There are {jobs}. Shall they belong to tenant {tenant}?", default=True, err=True)
    except typer.Abort:
        raise refused(
            f"There are {jobs}. Say whether they shall belong to tenant {tenant}: --adopt or --no-adopt. No key "
            "was created."
        ) from None


def _jobs_by_tenant(objects: "ObjectStore") -> Counter[str]:
    """Count jobs and batches by their tenants, of a large store some thousands of them."""
    from emx_shared.ledger import object_keys
    from emx_shared.ledger.records import UnreadableRecord, read_record
    from emx_shared.store import NoSuchObject

    def tenant(key: str) -> str | None:
        try:
            return read_record(objects.get(key)).tenant
        except (NoSuchObject, UnreadableRecord):
            return None

    keys = (entry.key for entry in objects.list(object_keys.JOBS) if object_keys.id_of_record(entry.key))
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        return Counter(name for name in pool.map(tenant, itertools.islice(keys, _COUNTED)) if name)


@keys.command("list")
def list_keys(store: Store = None, json: Json = False) -> None:
    """List all keys, including revoked keys."""
    from rich.table import Table

    with _keys(store) as (ring, _):
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
    with _keys(store) as (ring, _):
        key = ring.revoke(id)
        _note(store, "key.revoke", key.tenant, key.id)
        left = [each for each in ring.list() if each.revoked_at is None]
    print_line(_public(key)) if json else console.print(f"Key {key.id} of tenant {key.tenant} is revoked.")
    if not left:
        errors.print(
            "That was the last valid key: the server refuses every request now. Make another with "
            "`emx keys create`, or return to a server without keys with `emx keys clear`."
        )
    elif not any(each.tenant == key.tenant for each in left):
        errors.print(
            f"No valid key of tenant {key.tenant} is left, so nobody reaches its jobs. `emx keys create --tenant "
            f"{key.tenant}` makes another."
        )


@keys.command()
def clear(
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask for confirmation")] = False,
    store: Store = None,
    json: Json = False,
) -> None:
    """Remove all keys, so that the server needs none again.

    Everyone on the server's machine may do everything then, with the jobs from before the first key. Jobs of
    other tenants stay, and are reached again with a key of their tenant. A server that listens on loopback notices
    within five seconds; others ask for keys until they are started again.
    """
    with _keys(store) as (ring, _):
        found = ring.list()
        from emx_shared.api_keys import KEYLESS_TENANT

        others = sorted({key.tenant for key in found if key.jobs_of != KEYLESS_TENANT})
        if not yes:
            out_of_reach = f" Jobs of {', '.join(others)} are out of reach then." if others else ""
            typer.confirm(
                f"Remove {len(found)} keys, so that everyone on this machine may do everything?{out_of_reach}",
                abort=True,
                err=True,
            )
        removed = ring.clear()
        _note(store, "key.clear", KEYLESS_TENANT, f"{removed} keys")
    print_line({"removed": removed}) if json else console.print(f"{removed} keys removed: none is needed now.")


@contextmanager
def _keys(store: str | None, new: bool = False) -> "Iterator[tuple[KeyRing, ObjectStore]]":
    """Open the keys of a store, and the store; ``new`` makes a store that doesn't exist. Raises typer.Exit."""
    from emx_shared.api_keys import BadKeyRequest, KeyRing
    from emx_shared.store import StoreError, open_store
    from emx_shared.store.selection import folder_of

    chosen = _chosen(store)
    if not new and (folder := folder_of(chosen.store)) and not folder.is_dir():
        raise refused(f"There is no store at {folder}. Name the server's store with EMX_STORE or --store.")
    try:
        opened = open_store(chosen)
        yield KeyRing(opened), opened
    except BadKeyRequest as error:
        raise refused(error) from None
    except ImportError as error:
        raise refused(f"This store needs more packages ({error}): pip install 'explainmyxray[service]'") from None
    except StoreError as error:
        raise refused(f"{error} The store is {chosen.store}. Name another with EMX_STORE or --store.") from None


def _chosen(store: str | None) -> "Settings":
    from emx_shared.settings import settings

    return settings().model_copy(update={"store": store} if store else {})


def _note(store: str | None, action: str, tenant: str, subject: str) -> None:
    """Write to the server's audit log where it is a file; else the store's keys say when they were made."""
    from emx_shared.audit_log import AuditLog, AuditUnavailable

    log = AuditLog(_chosen(store))
    if log.file is None:
        return
    try:
        log.write(tenant=tenant, key=None, address="local", request=None, action=action, subject=subject)
    except AuditUnavailable:
        errors.print(f"[yellow]The audit log {log.file} can't be written: this isn't in it.[/]")


def _public(key: "ApiKey") -> dict[str, object]:
    return key.model_dump(mode="json", exclude={"digest"})
