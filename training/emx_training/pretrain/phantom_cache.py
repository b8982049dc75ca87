"""Phantoms on disk: rendered once on all cores, then read as arrays."""

import ast
import hashlib
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

import emx_training.phantoms
from emx_shared.contracts.findings import BY_LABEL
from emx_shared.grammar import LocatedFinding, LocBox
from emx_training.phantoms import PHANTOM_TERMS, SIZE, SiteName, render, term_ranks

MASK_CELLS = 32
"""Cells along each side of the coarse masks."""

_SHARD = 500
"""Phantoms in a file."""


@dataclass(frozen=True)
class CachedPhantoms:
    """Many phantoms as arrays.

    Attributes:
        images: (n, SIZE, SIZE) uint8.
        first: (n + 1,) int64; ``first[i]`` to ``first[i + 1]`` are the findings of image i.
        terms: (findings,) int64, ranks in ``PHANTOM_TERMS``.
        boxes: (findings, 4) int64, location bins, ymin xmin ymax xmax.
        masks: (findings, MASK_CELLS, MASK_CELLS) uint8, 255 times the share of each cell that is covered.
    """

    images: NDArray[np.uint8]
    first: NDArray[np.int64]
    terms: NDArray[np.int64]
    boxes: NDArray[np.int64]
    masks: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.images)

    def findings(self, index: int) -> tuple[LocatedFinding, ...]:
        """Return a phantom's findings, in the vocabulary's order and right before left."""
        located = range(self.first[index], self.first[index + 1])
        named = ((PHANTOM_TERMS[self.terms[one]], self.boxes[one].tolist()) for one in located)
        return tuple(LocatedFinding(BY_LABEL[label], side, LocBox(*box)) for (label, side), box in named)


def fingerprint() -> str:
    """Return the SHA-256 of the code that draws phantoms, without comments, docstrings and imports."""
    digest = hashlib.sha256()
    for file in sorted(Path(emx_training.phantoms.__file__).parent.glob("*.py")):
        code = _Undocumented().visit(ast.parse(file.read_text(encoding="utf-8")))
        digest.update(ast.unparse(code).encode())
    return digest.hexdigest()


class _Undocumented(ast.NodeTransformer):
    """Removes bare strings and imports, which can change without changing a phantom."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if text else node

    def visit_Import(self, node: ast.Import) -> None:
        return None

    visit_ImportFrom = visit_Import  # type: ignore[assignment]  # noqa: N815


def cached_phantoms(seeds: range, folder: Path, site: SiteName = "alpha") -> CachedPhantoms:
    """Load phantoms, and render those that the cache doesn't have yet.

    Args:
        seeds: of the phantoms, in the order of the result.
        folder: the cache. Its files are named after the code that draws phantoms, so they never go stale.
        site: where the phantoms are taken.
    """
    folder.mkdir(parents=True, exist_ok=True)
    version = fingerprint()[:10]
    shards = [seeds[at : at + _SHARD] for at in range(0, len(seeds), _SHARD)]
    paths = [folder / f"{version}-{site}-{shard.start}-{shard.stop}.npz" for shard in shards]
    missing = [(shard, path) for shard, path in zip(shards, paths, strict=True) if not path.exists()]
    if missing:
        with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
            jobs = pool.map(partial(_render_shard, site=site), *zip(*missing, strict=True))
            for _ in track(jobs, description=f"Rendering phantoms of {site}", total=len(missing)):
                pass
    loaded = [np.load(path) for path in paths]
    counts = np.concatenate([shard["counts"] for shard in loaded])
    return CachedPhantoms(
        images=np.concatenate([shard["images"] for shard in loaded]),
        first=np.concatenate([[0], np.cumsum(counts)]),
        terms=np.concatenate([shard["terms"] for shard in loaded]),
        boxes=np.concatenate([shard["boxes"] for shard in loaded]),
        masks=np.concatenate([shard["masks"] for shard in loaded]),
    )


def _render_shard(seeds: range, path: Path, site: SiteName) -> None:
    drawn = [render(seed, SIZE, site) for seed in seeds]
    located = [one for phantom in drawn for one in phantom.findings]
    side = SIZE // MASK_CELLS
    masks = np.concatenate([phantom.masks for phantom in drawn])
    shares = masks.reshape(-1, MASK_CELLS, side, MASK_CELLS, side).mean(axis=(2, 4))
    boxes = [(one.box.ymin, one.box.xmin, one.box.ymax, one.box.xmax) for one in located]
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        np.savez_compressed(
            file,
            images=np.stack([phantom.image for phantom in drawn]),
            counts=np.array([len(phantom.findings) for phantom in drawn]),
            terms=np.array(term_ranks(located), np.int64),
            boxes=np.array(boxes, np.int64).reshape(-1, 4),
            masks=(shares * 255).round().astype(np.uint8),
        )
    part.replace(path)
