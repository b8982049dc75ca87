"""Decode in processes of their own: an image that crashes a codec, or never ends, takes nothing else with it."""

import contextlib
import mmap
import os
import pickle
import queue
import subprocess
import sys
import tempfile
from functools import partial
from multiprocessing import Pipe
from typing import Any

from PIL import Image

from emx_shared.imaging.decoder_process import Work
from emx_shared.imaging.decoding import DecodedImage, decode
from emx_shared.imaging.refusals import BadImage
from emx_shared.settings import Settings

_TRIES = 2
"""Decoders that an image may take with it. The first may have fallen to something else, such as want of memory."""
_ALLOCATION = {f"MALLOC_{name}_": str(64 * 2**20) for name in ("MMAP_THRESHOLD", "TRIM_THRESHOLD")}
"""For glibc: keep so many bytes from one image to the next. To get them from the system anew costs a tenth of the
time of decoding."""
_KEPT = 16 * 2**20
"""Bytes of shared memory that a decoder keeps between two images."""


class DecoderKilled(BadImage):
    """The image crashed its decoder, or took too long."""


class DecoderPool:
    """Some processes that decode, started when they are needed and replaced when they die.

    Any number of threads may use it; those for which no process is free wait.
    """

    def __init__(self, processes: int, settings: Settings) -> None:
        """Start the first process, so that the first image needn't wait for it.

        Args:
            processes: most that run at a time.
            settings: the limits of an image, and of what decoding it may take.
        """
        self._settings = settings
        self._free: queue.LifoQueue[_Decoder] = queue.LifoQueue()
        for _ in range(processes - 1):
            self._free.put(_Decoder(settings))
        first = _Decoder(settings)
        first.start()
        self._free.put(first)

    def decode(self, data: bytes) -> DecodedImage:
        """Decode an image as ``imaging.decode`` does. Raises BadImage, of which DecoderKilled is one kind."""
        limits = self._settings.max_upload_bytes, self._settings.max_pixels
        (size, about), pixels = self.run(partial(_pixels, *limits), data)
        return DecodedImage(Image.frombuffer("L", size, pixels, "raw", "L", 0, 1), **about)

    def run(self, work: Work, data: bytes) -> tuple[Any, bytes]:
        """Do work on a file's bytes in a process that may die of it.

        Args:
            work: a function of a module, or a ``partial`` of one.
            data: the file, of at most ``max_upload_bytes``.

        Returns:
            What ``work`` returns.

        Raises:
            BadImage: as ``work`` raises it, or DecoderKilled.
            RuntimeError: ``work`` raised something else.
        """
        for _ in range(_TRIES):
            decoder = self._free.get()
            try:
                return decoder.run(work, data)
            except EOFError:
                continue
            finally:
                self._free.put(decoder)
        raise DecoderKilled("Decoding the image crashed its decoder. The file may be damaged, or made to do this.")

    def close(self) -> None:
        """End the processes that are free. Whoever decodes again starts others."""
        idle = []
        with contextlib.suppress(queue.Empty):
            while True:
                idle.append(self._free.get_nowait())
        for decoder in idle:
            decoder.kill()
            self._free.put(decoder)


class _Decoder:
    """One process, or the place for one, with the memory that is shared with it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process."""
        settings = self._settings
        size = max(settings.max_upload_bytes, 4 * settings.max_pixels) + _KEPT  # untouched pages cost nothing
        self._memory_fd = _anonymous_file()
        os.ftruncate(self._memory_fd, size)
        self._memory, self._size = mmap.mmap(self._memory_fd, size), size
        self._connection, theirs = Pipe()
        passed = theirs.fileno(), self._memory_fd
        arguments = [*passed, size, settings.decode_memory]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "emx_shared.imaging.decoder_process", *map(str, arguments)],
            pass_fds=passed,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # codecs write there what they find in the file
        )
        theirs.close()

    def run(self, work: Work, data: bytes) -> tuple[Any, bytes]:
        """Do the work. Raises EOFError if the process died, and what else ``DecoderPool.run`` does."""
        if self._process is None:
            self.start()
        seconds = self._settings.decode_timeout
        try:
            self._memory[: len(data)] = data
            self._connection.send_bytes(pickle.dumps((work, len(data), seconds)))
            if not self._connection.poll(seconds):
                self.kill()
                raise DecoderKilled(f"Decoding the image took longer than {seconds:g} s.")
            answer = pickle.loads(self._connection.recv_bytes())
        except (EOFError, ConnectionError):
            self.kill()
            raise EOFError from None
        if isinstance(answer, BaseException):
            self._forget(len(data))
            raise answer
        found, length = answer
        produced = self._memory[:length]
        self._forget(max(len(data), length))
        return found, produced

    def kill(self) -> None:
        """End the process; the next piece of work starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            self._connection.close()
            self._memory.close()
            os.close(self._memory_fd)

    def _forget(self, used: int) -> None:
        """Give memory back that a large image took."""
        if used > _KEPT:
            os.ftruncate(self._memory_fd, 0)
            os.ftruncate(self._memory_fd, self._size)


def _pixels(max_bytes: int, max_pixels: int, data: bytes) -> tuple[Any, Image.Image]:
    decoded = decode(data, max_bytes, max_pixels)
    about = {name: value for name, value in vars(decoded).items() if name != "image"}
    return (decoded.image.size, about), decoded.image


def _anonymous_file() -> int:
    """Return a file without a name: in memory where the system can do that, else one that is deleted already."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("image")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _environment() -> dict[str, str]:
    """Return the environment without the settings, which have secrets that no codec needs."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("EMX_")}
    return {**own, **_ALLOCATION, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
