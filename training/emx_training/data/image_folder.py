"""Finds a collection's image files, which are named in its table without their kind, or with another."""

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from emx_training.data.prepared_images import CorruptImage

_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom"}


class ImageFolder:
    """A folder with a collection's images, in whatever kind of file and subfolder they were downloaded."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, name: str) -> Path:
        """Return the file of an image.

        Args:
            name: its path below the folder; else a file of another kind, or in a subfolder, has that name.

        Raises:
            CorruptImage: if no file or several files have it.
        """
        exact = self._folder / name
        if exact.is_file():
            return exact
        found = self._files[PurePosixPath(stem_of(name)).name]
        beside = [path for path in found if path.parent == exact.parent]
        match beside or found:
            case [path]:
                return path
            case []:
                raise CorruptImage("there is no such file")
        raise CorruptImage("several files have that name")

    @cached_property
    def _files(self) -> defaultdict[str, list[Path]]:
        files: defaultdict[str, list[Path]] = defaultdict(list)
        for path in sorted(self._folder.rglob("*")):
            if path.suffix.lower() in _SUFFIXES and path.is_file():
                files[stem_of(path.name)].append(path)
        return files


def stem_of(name: str) -> str:
    """Return an image's path without the ending of its kind. What follows a dot may also be a part of a UID."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in _SUFFIXES else name


def prepared_names(names: Sequence[str]) -> list[str]:
    """Return the path below the output folder that each image is written to, unique among them."""
    taken: set[str] = set()
    prepared = []
    for name in names:
        target = f"images/{stem_of(name)}.png"
        if target in taken:
            target = f"images/{name}.png"
        taken.add(target)
        prepared.append(target)
    return prepared
