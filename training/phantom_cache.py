"""Phantoms on disk: rendered once by every core, then read as arrays."""

import hashlib
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from shared import findings, grammar
from training import phantoms, reports
from training.phantoms import PHANTOM_TERMS, render, term_ranks
from training.reports import report_of

SIZE = 128
"""Side of a cached image, pixels: what the demo model sees."""

CELLS = 16
"""Cells along each side of the coarse masks: the demo model's patches."""

_SHARD = 500


@dataclass(frozen=True)
class CachedPhantoms:
    """Many phantoms with their reports.

    Attributes:
        images: (n, SIZE, SIZE) uint8.
        cells: (n, terms, CELLS, CELLS) uint8, 255 times the share of each cell that each term of
            ``PHANTOM_TERMS`` covers.
        texts: the report of each.
    """

    images: NDArray[np.uint8]
    cells: NDArray[np.uint8]
    texts: list[str]

    def __len__(self) -> int:
        return len(self.texts)


def cached_phantoms(seeds: range, folder: Path, title: str = "Rendering phantoms") -> CachedPhantoms:
    """The phantoms of these seeds; what the folder lacks is rendered first, with a progress bar."""
    folder.mkdir(parents=True, exist_ok=True)
    version = _version()
    shards = [seeds[at : at + _SHARD] for at in range(0, len(seeds), _SHARD)]
    paths = [folder / f"{version}-{shard.start}-{shard.stop}.npz" for shard in shards]
    missing = [(shard, path) for shard, path in zip(shards, paths, strict=True) if not path.exists()]
    if missing:
        with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
            jobs = pool.map(_render_shard, *zip(*missing, strict=True))
            for _ in track(jobs, description=title, total=len(missing)):
                pass
    loaded = [np.load(path) for path in paths]
    return CachedPhantoms(
        np.concatenate([shard["images"] for shard in loaded]),
        np.concatenate([shard["cells"] for shard in loaded]),
        [str(text) for shard in loaded for text in shard["texts"]],
    )


def _render_shard(seeds: range, path: Path) -> None:
    drawn = [render(seed, SIZE) for seed in seeds]
    cells = np.zeros((len(drawn), len(PHANTOM_TERMS), CELLS, CELLS), np.uint8)
    for row, phantom in zip(cells, drawn, strict=True):
        side = SIZE // CELLS
        shares = phantom.masks.reshape(-1, CELLS, side, CELLS, side).mean(axis=(2, 4))
        row[term_ranks(phantom.findings)] = (shares * 255).round()
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez_compressed(
            file,
            images=np.stack([phantom.image for phantom in drawn]),
            cells=cells,
            texts=np.array([str(report_of(phantom.findings)) for phantom in drawn]),
        )
    part.rename(path)


def _version() -> str:
    """A digest of the code that decides what a phantom and its report are."""
    digest = hashlib.sha256()
    for module in (phantoms, reports, findings, grammar):
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()[:10]
