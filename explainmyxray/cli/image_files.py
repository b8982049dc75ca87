"""The image files that a command's arguments name: files, folders, ZIP archives or patterns."""

import glob
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import typer

_ENDINGS = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom"}
_DICOM_AT = 128
"""Bytes before the four letters DICM; DICOM files often have no ending (PS3.10, 7.1)."""


@dataclass(frozen=True)
class ImageFile:
    """An image file on disk or in a ZIP archive.

    Attributes:
        path: The file, or the archive that contains it.
        member: Its name within the archive; None outside of archives.
    """

    path: Path
    member: str | None = None

    @property
    def name(self) -> str:
        """Its name for people."""
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    @property
    def stem(self) -> str:
        """Its name without folders and ending, for files made from it."""
        return Path(self.member or self.path.name).stem

    def read(self) -> bytes:
        """Return the file's bytes. Raises OSError."""
        if self.member is None:
            return self.path.read_bytes()
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(self.member)
        except (zipfile.BadZipFile, KeyError, RuntimeError, NotImplementedError) as error:
            raise OSError(f"This file can't be extracted from the archive: {error}") from None


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
        found |= dict.fromkeys(files)
    return list(found)


def is_single(arguments: list[str]) -> bool:
    """Tell whether the arguments name one file, and no folder, archive or pattern."""
    path = Path(arguments[0])
    return len(arguments) == 1 and path.is_file() and path.suffix.lower() != ".zip"


def _find(argument: str) -> Iterator[ImageFile]:
    path = Path(argument)
    if path.is_dir():
        yield from (
            ImageFile(file) for file in sorted(path.rglob("*")) if file.is_file() and _looks_like_an_image(file)
        )
    elif path.suffix.lower() == ".zip" and path.is_file():
        try:
            with zipfile.ZipFile(path) as archive:
                members = sorted(name for name in archive.namelist() if Path(name).suffix.lower() in _ENDINGS)
        except (zipfile.BadZipFile, OSError) as error:
            raise typer.BadParameter(f"{path} can't be opened as a ZIP archive: {error}") from None
        yield from (ImageFile(path, name) for name in members if not Path(name).name.startswith("."))
    elif path.exists():
        yield ImageFile(path)
    else:
        matching = sorted(Path(name) for name in glob.glob(argument, recursive=True))  # noqa: PTH207
        yield from (ImageFile(file) for file in matching if file.is_file())


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
