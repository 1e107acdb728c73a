"""What one UNet call's text condition holds: who is active at its noise level, and what keys and values read in place of it."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Sequence

import torch
from torch import Tensor

from ...idea_engine.applying.applied import STARTS_AT, AppliedIdentity
from ...idea_engine.backends.noise_stages import stage_bounds
from .carried import CarriedCondition
from .mentions import Mention, signatures

CARRIED = "idea_carried"  # in the options of one UNet call: the condition that was made ordinary for a compiled network
_ROUNDING = 1.0001  # a noise level may come back from a lower precision


@dataclass(frozen=True)
class Ranged:
    """An identity, the noise levels between which it acts, ``end_sigma`` ≤ σ ≤ ``start_sigma``, and those between its stages."""

    applied: AppliedIdentity
    start_sigma: float
    end_sigma: float
    stages: tuple[float, ...]

    @classmethod
    def within(cls, applied: AppliedIdentity, sampling, levels: Sequence[float] | None = None) -> "Ranged":
        """Args: sampling: the host's object that knows the noise schedule. levels: the noise levels of this sampling's steps and of its end,
        where the host tells them.

        A start that leaves the scene to the first steps leaves them at most half of the steps that are really sampled: distilled models take one
        or two, and the person belongs to the last of them.
        """
        stages = stage_bounds(sampling.sigmas.tolist(), len(applied.identity.stages)) if applied.identity.stages else ()
        start, end = (float(sampling.percent_to_sigma(percent)) for percent in (applied.start, applied.end))
        if levels and len(levels) > 1 and applied.start <= STARTS_AT:
            start = max(start, levels[(len(levels) - 1) // 2] * _ROUNDING)
        return cls(applied, start, end, stages)

    @property
    def steady(self) -> bool:
        """Whether it is the same at every noise level."""
        return not self.applied.bounded and len(self.applied.identity.stages) < 2

    def active(self, sigma: float) -> bool:
        return not self.applied.bounded or self.end_sigma <= sigma <= self.start_sigma


@dataclass(frozen=True)
class Remembered:
    """Attributes: rows: (R,) signatures, sorted. order: (R,) their numbers; prompts come one after another, n rows each. weights: (R,) by number.
    stages: (S, 2, R, d) what stands for each in every stage, by number; None without stages."""

    rows: Tensor
    order: Tensor
    weights: Tensor
    stages: Tensor | None

    @classmethod
    def of(cls, mentions: list[Mention], applied: AppliedIdentity, context: Tensor) -> "Remembered":
        rows, order = signatures(torch.cat([mention.rows for mention in mentions]).to(context)).sort()
        weights = torch.tensor([mention.weight for mention in mentions], dtype=context.dtype, device=context.device).repeat_interleave(applied.identity.token_count)
        whole_stages = applied.faded.stages and all(mention.staged is not None for mention in mentions)
        return cls(rows, order, weights, torch.cat([mention.staged for mention in mentions], dim=2).to(context) if whole_stages else None)


class ContextPlan:
    """What one UNet call's context holds: a replacement for it, the rows of this stage, and the weights at identities' own positions.

    Args:
        staged: for each identity in stages: (B, L, 1) where it stands, and the contexts (B, L, d) that keys and that values read there.
        masks: (B, L, n) the weight of each identity's pseudo-tokens at each position.
        part: see :meth:`IdentityAttention._plan`.
    """

    def __init__(self, context: Tensor | None, staged: list[tuple[Tensor, Tensor, Tensor]], masks: list[tuple[AppliedIdentity, Tensor]], part: int = 0):
        self._context, self._staged, self._part = context, staged, part
        self._made: dict[str, tuple[Tensor, Tensor]] = {}
        self.applied = tuple(applied for applied, _ in masks)
        self._masks = [mask for _, mask in masks]
        self._mask: Tensor | None = None

    def for_values(self, context: Tensor, value: Tensor) -> "ContextPlan":
        """The same for values, which another patch may have given numbers of their own."""
        if value is context:
            return self
        other = ContextPlan(None, self._staged, [], self._part)
        other.applied, other._masks = self.applied, self._masks
        return other

    def read(self, kind: str, context: Tensor, offsets: Callable[[tuple[AppliedIdentity, ...], Tensor], Tensor]) -> Tensor:
        """The context (B, L, d) as keys or values read it; the very same object where nobody stands."""
        made = self._made.get(kind)
        if made is None or made[0] is not context:
            result = context if self._context is None else self._context
            for found, keys, values in self._staged:
                result = torch.where(found, (keys if kind == "keys" else values).to(result), result)
            self._made[kind] = made = (context, result)
        if not self.applied:
            return made[1]
        if self._mask is None or self._mask.dtype != context.dtype:
            self._mask = torch.cat([mask.to(context) for mask in self._masks], dim=-1).flatten(0, 1)
        # Elsewhere than where they stand it is bit for bit the same.
        return torch.addmm(made[1].flatten(0, 1), self._mask, offsets(self.applied, made[1])).view(made[1].shape)


NOTHING = ContextPlan(None, [], [])


def whole(context: Tensor, extra: dict) -> Tensor:
    """The context with what it carries, where that was kept aside from a compiled network."""
    kept = extra.get(CARRIED)
    if kept is None or isinstance(context, CarriedCondition) or kept.condition.shape != context.shape:
        return context
    return kept.like(context)


class KeptCondition:
    """A carried condition beside the UNet call that it was made ordinary for."""

    def __init__(self, condition: CarriedCondition):
        self.condition = condition

    def like(self, context: Tensor) -> CarriedCondition:
        """The same object for all blocks, as the network reads it."""
        if self.condition.dtype != context.dtype or self.condition.device != context.device:
            self.condition = self.condition.to(context)
        return self.condition
