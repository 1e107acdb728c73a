"""An identity as one ApplyIDAdapter node applies it."""
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ...idea_engine.identity import content_hash, faded
from ...idea_engine.types import Identity


@dataclass(frozen=True)
class AppliedIdentity:
    """Attributes: identity: as trained; strength: see :func:`~idea_engine.identity.faded`; start, end: sampling percent 0..1."""

    identity: Identity
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0

    @cached_property
    def faded(self) -> Identity:
        """The identity at this strength."""
        return faded(self.identity, self.strength)

    @cached_property
    def key(self) -> str:
        """Names what the text side encodes: the content of the identity at this strength."""
        return content_hash(self.faded)

    @property
    def bounded(self) -> bool:
        """Whether it acts during a part of the sampling only."""
        return self.start > 0.0 or self.end < 1.0

    @property
    def inert(self) -> bool:
        """Whether it never acts at all."""
        return self.strength == 0.0 or self.start >= self.end

    def __deepcopy__(self, memo) -> "AppliedIdentity":
        return self  # the host deep-copies model options with every clone; this is immutable and large


def inactive_sets(applied: list[AppliedIdentity]) -> set[frozenset[str]]:
    """The sets of identities that are out of their range together at some moment of the sampling, the empty set left out."""
    marks = sorted({0.0, 1.0, *(edge for a in applied for edge in (a.start, a.end))})
    middles = [(low + high) / 2 for low, high in zip(marks, marks[1:])]
    sets = {frozenset(a.key for a in applied if not a.start <= middle <= a.end) for middle in middles}
    return sets - {frozenset()}
