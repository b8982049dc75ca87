"""Which image files a command is given: files, folders, ZIP archives, or patterns."""

import glob
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import typer

_ENDINGS = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom"}
_DICOM_AT = 128
"""Bytes before the four letters DICM; files of DICOM often have no ending (PS3.10, 7.1)."""


@dataclass(frozen=True)
class ImageFile:
    """``name`` is for people; ``member`` is the name within a ZIP archive."""

    path: Path
    member: str | None = None

    @property
    def name(self) -> str:
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    @property
    def stem(self) -> str:
        return Path(self.member or self.path.name).stem

    def read(self) -> bytes:
        """Raises OSError."""
        if self.member is None:
            return self.path.read_bytes()
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(self.member)
        except (zipfile.BadZipFile, KeyError, RuntimeError, NotImplementedError) as error:
            raise OSError(f"This file can't be taken out of the archive: {error}") from None


def find_images(given: list[str]) -> list[ImageFile]:
    """In order, each once. A file that is named is taken whatever it is; in folders and archives, what looks like
    an image. Raises typer.BadParameter where nothing is found.
    """
    found: dict[ImageFile, None] = {}
    for one in given:
        here = list(_of(one))
        if not here:
            raise typer.BadParameter(f"There is no image file {one}.")
        found |= dict.fromkeys(here)
    return list(found)


def is_single(given: list[str]) -> bool:
    """Whether one file was named, and no folder, archive or pattern."""
    path = Path(given[0])
    return len(given) == 1 and path.is_file() and path.suffix.lower() != ".zip"


def _of(given: str) -> Iterator[ImageFile]:
    path = Path(given)
    if path.is_dir():
        yield from (
            ImageFile(file) for file in sorted(path.rglob("*")) if file.is_file() and _looks_like_one(file)
        )
    elif path.suffix.lower() == ".zip" and path.is_file():
        try:
            with zipfile.ZipFile(path) as archive:
                members = sorted(name for name in archive.namelist() if Path(name).suffix.lower() in _ENDINGS)
        except (zipfile.BadZipFile, OSError) as error:
            raise typer.BadParameter(f"{path} is no ZIP archive: {error}") from None
        yield from (ImageFile(path, name) for name in members if not Path(name).name.startswith("."))
    elif path.exists():
        yield ImageFile(path)
    else:
        matching = sorted(Path(name) for name in glob.glob(given, recursive=True))  # noqa: PTH207
        yield from (ImageFile(file) for file in matching if file.is_file())


def _looks_like_one(file: Path) -> bool:
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
