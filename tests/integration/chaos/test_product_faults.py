"""A process of the product has the faults that the fault folder names, and has them where it says."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from support.paths import ROOT
from tests.chaos.fault_folder import FaultFolder
from tests.chaos.product_faults import CUT

PROCESS = """
    import os, sys
    from pathlib import Path
    from emx_shared.store import StoreError, StoreFull
    from emx_shared.store.directory import DirectoryStore
    from tests.chaos.fault_folder import FaultFolder
    from tests.chaos.product_faults import install

    folder = Path(sys.argv[1])
    install(FaultFolder(folder / "faults"), is_worker=True, disk=folder / "store")
    store = DirectoryStore(folder / "store")
"""


@pytest.fixture
def faults(tmp_path: Path) -> FaultFolder:
    return FaultFolder(tmp_path / "faults").make()


def run(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process whose store has the faults."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROCESS) + textwrap.dedent(code), str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(("point", "there"), [("before-write-open", False), ("after-write-open", True)])
def test_a_process_dies_once_at_an_armed_point(
    tmp_path: Path, faults: FaultFolder, point: str, there: bool
) -> None:
    faults.arm(point)
    assert run(tmp_path, "store.put('open/a', b'{}')").returncode == -signal.SIGKILL
    assert not faults.armed()
    found = run(tmp_path, "print(store.exists('open/a')); store.put('open/a', b'{}'); store.delete('open/a')")
    assert (found.returncode, found.stdout.strip()) == (0, str(there)), found.stderr


def test_other_writes_pass_an_armed_point(tmp_path: Path, faults: FaultFolder) -> None:
    faults.arm("after-delete-open")
    assert run(tmp_path, "store.put('open/a', b'{}'); store.delete('outbox/a')").returncode == 0
    assert faults.armed() == {"after-delete-open"}


def test_a_process_dies_with_a_write_that_is_not_synced(tmp_path: Path, faults: FaultFolder) -> None:
    faults.arm(CUT)
    assert run(tmp_path, "store.put('open/a', b'{}')").returncode == -signal.SIGKILL
    assert run(tmp_path, "print(store.exists('open/a'))").stdout.strip() == "False"


@pytest.mark.parametrize("name", ["EROFS", "ENOSPC"])
def test_a_disk_s_errors_are_the_store_s(tmp_path: Path, faults: FaultFolder, name: str) -> None:
    code = f"""
        store.put("jobs/a", b"x")
        faults = FaultFolder(folder / "faults")
        for reads in ("writes", "all"):
            faults.break_disk(f"errno {name} {{reads}}")
            for act in (lambda: store.put("jobs/b", b"x"), lambda: store.get("jobs/a")):
                try:
                    print(act())
                except StoreError as error:
                    print(type(error).__name__, error)
        faults.mend_disk()
        print(store.get("jobs/a"), store.exists("jobs/b"))
    """
    kind = "StoreFull" if name == "ENOSPC" else "StoreError"
    refused = f"{kind} The store's disk failed: {os.strerror(getattr(errno, name))}"
    found = run(tmp_path, code)
    assert found.stdout.splitlines() == [refused, "b'x'", refused, refused, "b'x' False"], found.stderr


def test_a_worker_dies_of_poison_alone(tmp_path: Path, faults: FaultFolder) -> None:
    faults.poison("p" * 64)
    code = "store.put('jobs/a/input-{0}', b'x'); print(store.get('jobs/a/input-{0}'))"
    assert run(tmp_path, code.format("q" * 64)).stdout.strip() == "b'x'"
    assert run(tmp_path, code.format("p" * 64)).returncode == -signal.SIGKILL
