"""The folder through which the matrix tells the product's processes which faults they have now."""

import os
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.writes import FaultPoint


@dataclass(frozen=True)
class FaultFolder:
    """Files that name faults. Whoever has a fault that may strike once claims its file by a rename.

    Attributes:
        path: the folder.
    """

    path: Path

    def make(self) -> "FaultFolder":
        """Make the folder."""
        for name in ("armed", "reached"):
            (self.path / name).mkdir(parents=True)
        return self

    def arm(self, point: FaultPoint | str) -> None:
        """Let the first process that comes to a point die there."""
        (self.path / "armed" / str(point)).touch()

    def disarm(self, point: FaultPoint | str) -> None:
        """Let nobody die at a point any more."""
        (self.path / "armed" / str(point)).unlink(missing_ok=True)

    def armed(self) -> set[str]:
        """Return the points to which nobody has come yet."""
        return {file.name for file in (self.path / "armed").iterdir()}

    def claim(self, point: FaultPoint | str) -> bool:
        """Return whether this process is the first at an armed point."""
        try:
            os.rename(self.path / "armed" / str(point), self.path / "reached" / str(point))  # noqa: PTH104
        except FileNotFoundError:
            return False
        return True

    def break_disk(self, fault: str) -> None:
        """Give the store's disk a fault: see ``disk_faults``."""
        part = self.path / "disk.part"
        part.write_text(fault)
        part.rename(self.path / "disk")

    def mend_disk(self) -> None:
        """Take the disk's fault away."""
        (self.path / "disk").unlink(missing_ok=True)

    def disk_fault(self) -> str | None:
        """Return the disk's fault."""
        try:
            with open(self.path / "disk") as file:  # noqa: PTH123
                return file.read()
        except FileNotFoundError:
            return None

    def poison(self, sha256: str) -> None:
        """Let every worker die that fetches this image."""
        with (self.path / "poison").open("a") as file:
            file.write(f"{sha256}\n")

    def is_poison(self, sha256: str) -> bool:
        """Return whether a worker dies of this image."""
        try:
            with open(self.path / "poison") as file:  # noqa: PTH123
                return sha256 in file.read()
        except FileNotFoundError:
            return False
