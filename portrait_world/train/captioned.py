"""Batches of training pictures with fresh captions, named and unnamed people mixed."""
from __future__ import annotations

import numpy as np

from ..world.captions import caption, describe
from ..world.people import SPLITS, Person, name, person
from ..world.portrayal import Shot
from .dataset import Entry, entries

NAMED_SHARE = 0.65
UNKNOWN_WORDS = ("xylograph", "quaint", "seventeen", "of course", "zzz")  # outside the grammar: the table's unknown row


class Captioned:
    """All training pictures' people and shots in memory, and their rows in the two picture stores laid end to end."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.entries: list[Entry] = entries("named") + entries("unnamed")
        self.named_count = len(entries("named"))
        self.shots: list[Shot] = [entry.shot() for entry in self.entries]
        self._people: dict[tuple[str, int], Person] = {
            (split, index): person(split, index) for split in ("named", "unnamed") for index in range(SPLITS[split])
        }

    def draw(self, count: int) -> np.ndarray:
        """(count,) rows: NAMED_SHARE of them of named people."""
        named = self.rng.uniform(size=count) < NAMED_SHARE
        low = np.where(named, 0, self.named_count)
        high = np.where(named, self.named_count, len(self.entries))
        return self.rng.integers(low, high)

    def person(self, row: int) -> Person:
        entry = self.entries[row]
        return self._people[entry.split, entry.index]

    def caption(self, row: int, empty_share: float = 0.0) -> str:
        """A fresh caption of one picture; now and then with a word the model must learn to pass over."""
        if self.rng.uniform() < empty_share:
            return ""
        entry = self.entries[row]
        subject = name(entry.index) if entry.split == "named" else describe(self.person(row), self.rng)
        text = caption(subject, self.shots[row], self.rng)
        if self.rng.uniform() < 0.03:
            words = text.split(" ")
            words.insert(int(self.rng.integers(len(words) + 1)), UNKNOWN_WORDS[self.rng.integers(len(UNKNOWN_WORDS))])
            text = " ".join(words)
        return text
