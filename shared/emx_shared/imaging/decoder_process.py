"""The process that decodes: ``python -P -m emx_shared.imaging.decoder_process``. ``decoder_pool`` starts it.

It reads a piece of work and its input, an image file, and answers with a small object and bytes. Both files' bytes
pass through memory that it shares with its parent. It ends when its parent does.
"""

import contextlib
import mmap
import os
import pickle
import resource
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from PIL import Image

from emx_shared.imaging.refusals import BadImage

Work = Callable[[bytes], tuple[Any, bytes | Image.Image]]
"""What is done with a file's bytes. It returns a small object to pickle, and bytes or an image of mode L."""


def main() -> None:
    """Do the parent's work until it hangs up."""
    connection_fd, memory_fd, shared_bytes, private_bytes = map(int, sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the parent decides
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold the radiograph
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_DATA, (private_bytes, private_bytes))
    memory = mmap.mmap(memory_fd, shared_bytes)
    os.close(memory_fd)
    connection = Connection(connection_fd)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            connection.send_bytes(pickle.dumps(_answer(connection.recv_bytes(), memory)))


def _answer(request: bytes, memory: mmap.mmap) -> tuple[Any, int] | BaseException:
    """Do one piece of work.

    Returns:
        Its small object, and how many bytes it left in the shared memory; or what it raised, of which errors
        other than BadImage keep nothing but their type: their text may quote the image's.
    """
    work, length, seconds = pickle.loads(request)
    signal.alarm(int(seconds) + 5)  # if the parent is gone it can't put an end to this
    try:
        found, produced = work(memory[:length])
        return found, _leave(produced, memory)
    except BadImage as error:
        return error
    except MemoryError:
        return BadImage("The image needs more memory to decode than is allowed here.")
    except Exception as error:
        return RuntimeError(f"the decoder raised {type(error).__name__}")
    finally:
        signal.alarm(0)


def _leave(produced: bytes | Image.Image, memory: mmap.mmap) -> int:
    """Put what was produced into the shared memory, and return its length."""
    if isinstance(produced, bytes):
        memory[: len(produced)] = produced
        return len(produced)
    shared = Image.frombuffer("L", produced.size, memory, "raw", "L", 0, 1)  # type: ignore[arg-type]
    shared.readonly = 0  # Pillow would copy it otherwise, before it pastes
    shared.paste(produced)
    return produced.width * produced.height


if __name__ == "__main__":
    main()
