"""``emx doctor --store``: try whether a store can hold a ledger, and leave nothing behind."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from emx_shared.settings import Settings
from explainmyxray.cli.doctor_checks import Check, nearest_existing

if TYPE_CHECKING:
    from emx_shared.store import Store

_ANOTHER = "Use another store: SeaweedFS, AWS S3, Ceph, Garage, or a local directory (file:DIR)."


def try_store(chosen: Settings) -> Iterator[Check]:
    """Yield a check for each thing that a ledger needs of its store, and the verdict."""
    try:
        from emx_shared.store import StoreError, UnsuitableStore
        from emx_shared.store.selection import folder_of

        folder = folder_of(chosen.store)
        yield from _try_folder(folder, chosen.store) if folder else _try_bucket(chosen)
    except ImportError as error:
        yield Check("Verdict", "fail", f"not tried ({error})", "pip install 'explainmyxray[service]'")
    except UnsuitableStore as error:
        yield Check("Verdict", "fail", f"{chosen.store} can't hold a ledger: {error}")
    except (StoreError, OSError) as error:
        todo = "Correct its address, EMX_S3_ACCESS_KEY or EMX_S3_SECRET_KEY, or make it writable."
        yield Check("Verdict", "fail", f"{chosen.store} could not be tried: {error}", todo)


def _try_folder(folder: Path, name: str) -> Iterator[Check]:
    """Try a store in a folder aside, in the same file system."""
    from emx_shared.store.directory import DirectoryStore

    with tempfile.TemporaryDirectory(prefix=".emx-doctor-", dir=nearest_existing(folder)) as aside:
        yield from _tried(DirectoryStore(Path(aside)), name)


def _try_bucket(chosen: Settings) -> Iterator[Check]:
    """Try an S3 server. A bucket that doesn't exist is made, and removed again."""
    from emx_shared.store import open_store

    store, removed = open_store(chosen), True
    made = store.prepare()
    try:
        yield from _tried(store, chosen.store)
    finally:
        if made:
            removed = _remove(store)
    if not removed:
        yield Check("Bucket", "warn", f"the bucket of {chosen.store}, made to try it, stays", "Remove it.")


def _remove(store: "Store") -> bool:
    from emx_shared.store import StoreError

    try:
        store.remove()
    except StoreError:  # a server that is none too good keeps something in it that it doesn't list
        return False
    return True


def _tried(store: "Store", name: str) -> Iterator[Check]:
    from emx_shared.store.suitability import REQUIREMENTS, try_out

    failed = []
    for requirement in REQUIREMENTS:
        fault = try_out(store, requirement)
        yield Check(requirement.name, "fail" if fault else "ok", fault or requirement.promise)
        if fault:
            failed.append(requirement.name)
    if failed:
        todo = "Set the clocks, by NTP for example." if failed == ["Clock"] else _ANOTHER
        yield Check("Verdict", "fail", f"{name} can't hold a ledger: {', '.join(failed)}", todo)
    else:
        yield Check("Verdict", "ok", f"{name} can hold a ledger")
