"""An identity as it is applied to a model: what the hosts' text and cross-attention sides share."""
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Sequence

import torch
from torch import Tensor

from ..backends.family import ModelFamily
from ..errors import FamilyMismatchError
from ..identity.identity import Identity
from ..identity.operations import content_hash, faded
from .adapter_residual import adapter_residual

# The first steps lay out the scene, and one photograph teaches its own scene along with the face: a person who comes in a little later is as much
# alike, and more of the prompt is drawn (docs/ablation.md). FastComposer (2305.10431) delays its subjects for the same reason.
STARTS_AT = 0.1
CHUNK = 77  # positions of one chunk of a CLIP text encoder


@dataclass(frozen=True)
class AppliedIdentity:
    """Attributes: identity: as trained; strength: see :func:`~idea_engine.identity.operations.faded`; start, end: sampling percent 0..1; mask: (M, H, W) in
    0..1, where in the picture it acts, or None for everywhere."""

    identity: Identity
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0
    mask: Tensor | None = None

    @cached_property
    def faded(self) -> Identity:
        """The identity at this strength."""
        return faded(self.identity, self.strength)

    @cached_property
    def key(self) -> str:
        """Names what the text side encodes: the content of the identity at this strength."""
        return content_hash(self.faded)

    @property
    def mention(self) -> str:
        """Names what a prompt can leave as plain words: the same person may answer to two triggers, each with a range of its own."""
        return f"{self.key} {self.identity.trigger}"

    @property
    def bounded(self) -> bool:
        """Whether it acts during a part of the sampling only."""
        return self.start > 0.0 or self.end < 1.0

    @property
    def partial(self) -> bool:
        """Whether a prompt is also needed with its mention as plain words: for a part of the sampling, or of the picture."""
        return self.bounded or self.mask is not None

    @property
    def inert(self) -> bool:
        """Whether it never acts at all."""
        return self.strength == 0.0 or self.start >= self.end

    def __deepcopy__(self, memo) -> "AppliedIdentity":
        return self  # the host deep-copies model options with every clone; this is immutable and large


def inactive_sets(applied: list[AppliedIdentity]) -> set[frozenset[str]]:
    """The sets of mentions that are inactive together at some moment of the sampling or place in the picture, the empty set left out."""
    marks = sorted({0.0, 1.0, *(edge for a in applied for edge in (a.start, a.end))})
    middles = [(low + high) / 2 for low, high in zip(marks, marks[1:])]
    sets = {frozenset(a.mention for a in applied if not a.start <= middle <= a.end) for middle in middles}
    for masked in (a for a in applied if a.mask is not None):
        sets |= {absent | {masked.mention} for absent in sets}
    return sets - {frozenset()}


@dataclass(frozen=True)
class Place:
    """One mention: who, the positions of the n pseudo-tokens in the text condition, those of its chunk from the end mark on, where no text of
    the prompt has words any more, and the weight that the prompt gives it: 1.2 in ``(<anna>:1.2)``."""

    applied: AppliedIdentity
    positions: tuple[int, ...]
    ending: tuple[int, ...] = ()
    weight: float = 1.0


def adapt(condition: Tensor, places: Sequence[Place]) -> Tensor:
    """The text condition (B, L, d) with every mentioned identity's adapter and ending applied to the chunk in which it is mentioned.

    The ending goes with the weight of the mention, of several in a chunk with the one that is farthest from 0: the host weighs the person's own
    words, and nobody would expect half of a person to stay. All residuals are computed from the plain condition and summed in the order of the
    identities' contents, so the order in which they were applied does not matter.
    """
    result = condition
    # One person under two names is one person: there is one of them in each chunk.
    for applied in sorted({place.applied.key: place.applied for place in places}.values(), key=lambda one: one.key):
        own = [place for place in places if place.applied.key == applied.key]
        if applied.faded.ending is not None:
            share = torch.zeros(condition.shape[1], 1, dtype=condition.dtype, device=condition.device)
            for place in sorted(own, key=lambda one: abs(one.weight)):
                share[list(place.ending)] = place.weight
            result = result + share * applied.faded.ending.to(condition)
        weights = applied.faded.adapter
        if weights is None or weights.gate == 0.0:
            continue
        positions = [position for place in own for position in place.positions]
        change = torch.zeros_like(condition)
        for start in sorted({position // CHUNK * CHUNK for position in positions}):
            part = slice(start, min(start + CHUNK, condition.shape[1]))
            change[:, part] = adapter_residual(weights, condition[:, part]).to(condition)
        if weights.scope == "tokens":
            keep = torch.zeros(condition.shape[1], 1, dtype=torch.bool, device=condition.device)
            keep[positions] = True
            change = change * keep
        result = result + change
    return result


def check_fits(identity: Identity, family: ModelFamily, shapes: Sequence[tuple[int, ...]]) -> None:
    """Whether an identity can be applied to a model.

    Args:
        family: of the model.
        shapes: (c, d) of the key projection of each of its cross-attention blocks, in run order.

    Raises:
        FamilyMismatchError: ``identity`` was made for another family, or for another UNet of it.
    """
    if identity.family != family:
        raise FamilyMismatchError(
            f"The identity {identity.trigger} was made for {identity.family.describe()}, but the connected model is {family.describe()}. "
            "Load a checkpoint of the identity's family, bring the person over with Refit Identity (25 steps), or train the person again on this one with the "
            "Train node."
        )
    blocks = dict(enumerate(shapes))
    offsets, weights = ((getattr(identity, f"key_{kind}"), getattr(identity, f"value_{kind}")) for kind in ("offsets", "weights"))
    whole = all(part.keys() == blocks.keys() for part in offsets) or not any(offsets)
    if not whole or any(blocks.get(number) != tuple(change.shape) for part in weights for number, change in part.items()):
        raise FamilyMismatchError(
            f"The identity {identity.trigger} holds keys and values for another arrangement of cross-attention blocks than the {len(shapes)} of the "
            f"connected MODEL, which is a variant of {family.describe()}. Load the checkpoint it was trained on, or bring the person to this one "
            "with Refit Identity (25 steps)."
        )
