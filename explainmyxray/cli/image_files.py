"""The image files that a command's arguments name: files, folders, ZIP archives or patterns."""

import glob
import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import TypeVar

import typer

T = TypeVar("T")
_ENDINGS = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom"}
_PIECE = 2**20
"""Bytes that are read of an archive's member at a time."""

_DICOM_AT = 128
"""Bytes before the four letters DICM; DICOM files often have no ending (PS3.10, 7.1)."""


@dataclass(frozen=True)
class ImageFile:
    """An image file on disk or in a ZIP archive.

    Attributes:
        path: The file, or the archive that contains it.
        member: Its name within the archive; None outside of archives.
        below: Its name below the argument that named it, with its folders.
    """

    path: Path
    member: str | None = None
    below: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """Its name for people."""
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    def stamp(self) -> str:
        """Return what changes when the file does; empty if it can't be looked at."""
        try:
            found = self.path.stat()
        except OSError:
            return ""
        return f"{found.st_size} {found.st_mtime_ns}"

    def size(self) -> int:
        """Return the number of its bytes. Raises OSError."""
        if self.member is None:
            return self.path.stat().st_size
        return _extracted(lambda archive: archive.getinfo(str(self.member)).file_size, self.path)

    def sha256(self) -> str:
        """Return the digest of the file's bytes, which may be more than fit into memory. Raises OSError."""
        if self.member is None:
            with self.path.open("rb") as opened:
                return hashlib.file_digest(opened, "sha256").hexdigest()
        return _extracted(self._member_digest, self.path)

    def read(self) -> bytes:
        """Return the file's bytes. Raises OSError."""
        if self.member is None:
            return self.path.read_bytes()
        return _extracted(lambda archive: archive.read(str(self.member)), self.path)

    def _member_digest(self, archive: zipfile.ZipFile) -> str:
        digest = hashlib.sha256()
        with archive.open(str(self.member)) as opened:
            while piece := opened.read(_PIECE):
                digest.update(piece)
        return digest.hexdigest()


def find_images(arguments: list[str]) -> list[ImageFile]:
    """Find the image files that arguments name, in order and each once.

    A file that is named itself is taken whatever its type. In folders and archives, files are taken that look like
    images.

    Raises:
        typer.BadParameter: An argument names no image file.
    """
    found: dict[ImageFile, None] = {}
    for argument in arguments:
        files = list(_find(argument))
        if not files:
            raise typer.BadParameter(f"There is no image file {argument}.")
        folder = _folder_of(Path(argument)) if len(arguments) > 1 else ""
        for file in files:
            found.setdefault(replace(file, below=f"{folder}/{file.below}") if folder else file)
    return list(found)


def unique_names(files: list[ImageFile]) -> dict[str, ImageFile]:
    """Return files by their names below the arguments that named them; a second one of a name is numbered."""
    named: dict[str, ImageFile] = {}
    for file in files:
        path, number = PurePosixPath(file.below), 1
        name = str(path)
        while name in named:
            number += 1
            name = str(path.with_name(f"{path.stem}-{number}{path.suffix}"))
        named[name] = file
    return named


def _folder_of(argument: Path) -> str:
    """Return the name of the folder or archive that an argument names; empty for a file or a pattern."""
    if argument.is_dir():
        return argument.resolve().name
    return argument.stem if argument.suffix.lower() == ".zip" else ""


def is_single(arguments: list[str]) -> bool:
    """Tell whether the arguments name one file, and no folder, archive or pattern."""
    path = Path(arguments[0])
    return len(arguments) == 1 and path.is_file() and path.suffix.lower() != ".zip"


def _find(argument: str) -> Iterator[ImageFile]:
    path = Path(argument)
    if path.is_dir():
        yield from (
            ImageFile(file, below=file.relative_to(path).as_posix())
            for file in sorted(path.rglob("*"))
            if file.is_file() and _looks_like_an_image(file)
        )
    elif path.suffix.lower() == ".zip" and path.is_file():
        try:
            with zipfile.ZipFile(path) as archive:
                members = sorted(name for name in archive.namelist() if Path(name).suffix.lower() in _ENDINGS)
        except (zipfile.BadZipFile, OSError) as error:
            raise typer.BadParameter(f"{path} can't be opened as a ZIP archive: {error}") from None
        yield from (ImageFile(path, name, name) for name in members if not Path(name).name.startswith("."))
    elif path.exists():
        yield ImageFile(path, below=path.name)
    else:
        matching = sorted(Path(name) for name in glob.glob(argument, recursive=True))  # noqa: PTH207
        fixed = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
        yield from (
            ImageFile(file, below=file.relative_to(fixed).as_posix()) for file in matching if file.is_file()
        )


def _extracted(read: Callable[[zipfile.ZipFile], T], archive: Path) -> T:
    """Return what ``read`` takes out of an archive. Raises OSError."""
    try:
        return read(_opened(archive, archive.stat().st_mtime_ns))
    except (zipfile.BadZipFile, KeyError, RuntimeError, NotImplementedError, zlib.error) as error:
        raise OSError(f"This file can't be extracted from the archive: {error}") from None


@lru_cache(maxsize=4)
def _opened(archive: Path, changed_at: int) -> zipfile.ZipFile:
    """Open an archive once for all its members, as its table of contents may be long."""
    return zipfile.ZipFile(archive)


def _looks_like_an_image(file: Path) -> bool:
    if file.name.startswith("."):
        return False
    if file.suffix.lower() in _ENDINGS:
        return True
    if file.suffix:
        return False
    try:
        with file.open("rb") as opened:
            return opened.read(_DICOM_AT + 4)[_DICOM_AT:] == b"DICM"
    except OSError:
        return False
