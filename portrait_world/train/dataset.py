"""The training pictures: rendered once, kept as one uint8 file, their shots and captions recomputed from seeds.

Only named and unnamed people are in it. Work files live in a cache folder (``PORTRAIT_WORLD_CACHE``, else
``~/.cache/id-ea/portrait``), never in the repository.
"""
from __future__ import annotations

from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

from ..cache import cache_folder
from ..drawing.portrait import SIZE, render
from ..world.captions import caption, describe
from ..world.people import SPLITS, name, person
from ..world.portrayal import Shot, sample_shot

SHOTS_NAMED = 90
SHOTS_UNNAMED = 6


def shot_of(split: str, index: int, number: int) -> Shot:
    """Shot ``number`` of a person: a pure function, so nothing but pixels needs keeping."""
    return sample_shot(np.random.default_rng([tuple(SPLITS).index(split), index, number, 402_00631]))


@dataclass(frozen=True)
class Entry:
    """One picture: whose, and which of that person's shots."""

    split: str
    index: int
    number: int

    def shot(self) -> Shot:
        return shot_of(self.split, self.index, self.number)

    def caption(self, rng: np.random.Generator) -> str:
        """A fresh training caption: by name for the named, in words for the others."""
        subject = name(self.index) if self.split == "named" else describe(person(self.split, self.index), rng)
        return caption(subject, self.shot(), rng)

    def render(self) -> np.ndarray:
        return render(person(self.split, self.index), self.shot())


def entries(split: str) -> list[Entry]:
    """All training pictures of a split, person by person."""
    count = {"named": SHOTS_NAMED, "unnamed": SHOTS_UNNAMED}[split]
    return [Entry(split, index, number) for index in range(SPLITS[split]) for number in range(count)]


def pictures(split: str, workers: int = 2) -> np.ndarray:
    """(N, 128, 128, 3) uint8, memory-mapped, in the order of ``entries``; rendered on first use.

    An interrupted rendering goes on where it stopped.
    """
    listed = entries(split)
    path = cache_folder() / f"pictures-{split}.npy"
    done_path = path.with_suffix(".done")
    shape = (len(listed), SIZE, SIZE, 3)
    if done_path.exists() and int(done_path.read_text()) == len(listed):
        return np.load(path, mmap_mode="r")
    from tqdm import tqdm

    begun = int(done_path.read_text()) if done_path.exists() else 0
    mode = "r+" if begun else "w+"
    store = np.lib.format.open_memmap(path, mode, np.uint8, shape)
    chunk = 256
    starts = range(begun, len(listed), chunk)
    with get_context("spawn").Pool(workers) as pool, tqdm(total=len(listed), initial=begun, desc=f"render {split}") as bar:
        for start, block in zip(starts, pool.imap(_render_block, (listed[s:s + chunk] for s in starts))):
            store[start:start + len(block)] = block
            done_path.write_text(str(start + len(block)))
            bar.update(len(block))
    store.flush()
    return np.load(path, mmap_mode="r")


def _render_block(block: list[Entry]) -> np.ndarray:
    return np.stack([entry.render() for entry in block])
