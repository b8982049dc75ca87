"""Images that crash a codec, never end or take too much memory, in real processes."""

import faulthandler
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from emx_shared.imaging import BadImage, NotAnImage, decode
from emx_shared.imaging.decoder_pool import DecoderKilled, DecoderPool
from emx_shared.settings import Settings

MODULES = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
"""For functions of this file, which a decoder's process has to find."""


def png(width: int = 300, height: int = 200) -> bytes:
    stream = io.BytesIO()
    gray = np.random.default_rng(0).integers(0, 255, (height, width), dtype=np.uint8)
    Image.fromarray(gray).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def decoders() -> set[int]:
    """Return the decoders' processes of this one that are alive."""
    lists = (path.read_text().split() for path in Path("/proc/self/task").glob("*/children"))
    found = {int(pid) for some in lists for pid in some}
    return {pid for pid in found if b"decoder_process" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def crash(data: bytes) -> tuple[None, bytes]:
    faulthandler._sigsegv()  # type: ignore[attr-defined]
    return None, b""


def environment(data: bytes) -> tuple[list[str], bytes]:
    return sorted(os.environ), b""


@pytest.fixture
def others() -> set[int]:
    """Decoders of tests that ran in this process before."""
    return decoders()


@pytest.fixture
def pool(
    others: set[int], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DecoderPool]:
    monkeypatch.setenv("PYTHONPATH", MODULES)
    made = DecoderPool(2, Settings(**getattr(request, "param", {})))
    yield made
    made.close()


def limits(**settings: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("pool", [settings], indirect=True)


def test_an_image_is_the_one_that_is_decoded_in_place(pool: DecoderPool) -> None:
    for data in (png(), png(4000, 5000), png(33, 47)):
        here, there = decode(data), pool.decode(data)
        assert there.image.mode == "L" and there.image.tobytes() == here.image.tobytes()
        assert {**vars(there), "image": None} == {**vars(here), "image": None}


def test_a_refusal_is_the_one_of_decoding_in_place(pool: DecoderPool) -> None:
    with pytest.raises(NotAnImage, match="not a PNG, JPEG, TIFF or DICOM"):
        pool.decode(b"GIF89a" * 50)


def test_a_crash_is_a_refusal_and_takes_nothing_else_with_it(pool: DecoderPool) -> None:
    answers: list[bool] = []
    other = threading.Thread(
        target=lambda: answers.extend(pool.decode(png(2000, 2000)) is not None for _ in "123")
    )
    other.start()
    with pytest.raises(DecoderKilled, match="crashed its decoder"):
        pool.run(crash, b"any")
    other.join(30)
    assert answers == [True] * 3
    assert pool.decode(png()).facts.width == 300


@limits(decode_timeout=0.05)
def test_an_image_that_never_ends_is_refused_and_its_process_killed(pool: DecoderPool, others: set[int]) -> None:
    with pytest.raises(DecoderKilled, match="took longer than"):
        pool.decode(png(7000, 7000))
    assert decoders() == others


@limits(decode_memory=120 * 2**20)
def test_memory_is_bounded(pool: DecoderPool) -> None:
    with pytest.raises(BadImage, match="more memory to decode than is allowed"):
        pool.decode(png(7000, 7000))
    assert pool.decode(png()).facts.width == 300


def test_an_image_isnt_blamed_for_a_process_that_somebody_killed(pool: DecoderPool, others: set[int]) -> None:
    pool.decode(png())
    (worker,) = decoders() - others
    threading.Timer(0.1, lambda: os.kill(worker, signal.SIGKILL)).start()
    assert pool.decode(png(7000, 7000)).facts.width == 7000
    assert worker not in decoders()


def test_memory_of_a_large_image_is_given_back(pool: DecoderPool, others: set[int]) -> None:
    pool.decode(png(7000, 7000))
    (worker,) = decoders() - others
    shared = Path(f"/proc/{worker}/status").read_text().split("RssShmem:")[1].split()[0]
    assert int(shared) < 20_000, "kilobytes"


def test_a_process_that_decodes_knows_no_secret(pool: DecoderPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMX_S3_SECRET_KEY", "secret")
    pool.close()  # the next is started with the secret at hand
    names, _ = pool.run(environment, b"")
    assert "PATH" in names and not [name for name in names if name.startswith("EMX_")]


def test_processes_end_with_their_parent(tmp_path: Path) -> None:
    code = (
        "import os, time\nfrom emx_shared.imaging.decoder_pool import DecoderPool\n"
        "from emx_shared.settings import Settings\n"
        "pool = DecoderPool(1, Settings())\nprint(pool._free.get()._process.pid, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
    give_up = time.monotonic() + 20
    while Path(f"/proc/{worker}/stat").exists() and time.monotonic() < give_up:
        if Path(f"/proc/{worker}/stat").read_text().split()[2] == "Z":
            break
        time.sleep(0.1)
    else:
        assert time.monotonic() < give_up
