"""Identities in the UNet's cross-attention, through the host's public patch points only."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...idea_engine.applied import AppliedIdentity
from ...idea_engine.stages import stage_at, stage_bounds
from .family import cross_attention_blocks
from .mentions import MENTIONS, match, signatures


def with_identity(model, applied: AppliedIdentity):
    """A clone of ``model`` in which the identity's keys and values act; the original is untouched."""
    clone = model.clone()
    blocks = cross_attention_blocks(model.model.diffusion_model)
    numbers = {key: number for number, key in enumerate(blocks)}
    sampling = model.get_model_object("model_sampling")
    bounds = (float(sampling.percent_to_sigma(applied.start)), float(sampling.percent_to_sigma(applied.end)))
    stages = stage_bounds(sampling.sigmas.tolist(), len(applied.identity.stages)) if applied.identity.stages else ()
    patches = clone.model_options["transformer_options"].setdefault("patches", {})
    others = [patch for patch in patches.get("attn2_patch", []) if not isinstance(patch, IdentityAttention)]
    before = [patch for patch in patches.get("attn2_patch", []) if isinstance(patch, IdentityAttention)]
    ranged = tuple(entry for patch in before for entry in patch.entries) + (_Ranged(applied, *bounds, stages),)
    patches["attn2_patch"] = others + [IdentityAttention(ranged, numbers)]
    _add_global_weights(clone, applied, [path for path, _ in blocks.values()])
    return clone


def _add_global_weights(model, applied: AppliedIdentity, paths: list[str]) -> None:
    """The recipe 'paper' changes to_k and to_v themselves; the host's weight patches add and remove that exactly."""
    changes = {}
    for projection, weights in (("to_k", applied.faded.key_weights), ("to_v", applied.faded.value_weights)):
        for number, change in weights.items():
            changes[f"diffusion_model.{paths[number]}.attn2.{projection}.weight"] = ("diff", (change.float(),))
    if changes:
        model.add_patches(changes, 1.0)


@dataclass(frozen=True)
class _Ranged:
    """An identity, the noise levels between which it acts, ``end_sigma`` ≤ σ ≤ ``start_sigma``, and those between its stages."""

    applied: AppliedIdentity
    start_sigma: float
    end_sigma: float
    stages: tuple[float, ...] = ()

    @property
    def steady(self) -> bool:
        """Whether it is the same at every noise level."""
        return not self.applied.bounded and len(self.applied.identity.stages) < 2

    def active(self, sigma: float) -> bool:
        return not self.applied.bounded or self.end_sigma <= sigma <= self.start_sigma


class IdentityAttention:
    """An ``attn2_patch`` for all identities of one MODEL: gives each block its own context for keys and for values.

    Where no identity is mentioned the contexts pass through as the same objects, so the host computes exactly what it did.
    """

    def __init__(self, entries: tuple[_Ranged, ...], numbers: dict[tuple[str, int, int], int]):
        self.entries, self.numbers = entries, numbers
        self._seen: tuple[Tensor, Tensor, int, _Plan | None] | None = None
        self._rows: dict[tuple, tuple[int, Tensor, Tensor | None]] = {}
        self._offsets: dict[tuple, Tensor] = {}

    def __deepcopy__(self, memo) -> "IdentityAttention":
        return self  # the host deep-copies model options with every clone; the state here is only a cache

    def __call__(self, n: Tensor, context: Tensor, value: Tensor, extra: dict):
        # All blocks of one UNet call get the same context and noise level objects; what they hold is found out once.
        sigmas, seen = extra.get("sigmas"), self._seen
        if seen is None or seen[0] is not context or seen[1] is not sigmas or seen[2] != MENTIONS.version:
            self._seen = seen = (context, sigmas, MENTIONS.version, self._plan(context, sigmas))
        plan = seen[3]
        if plan is None:
            return n, context, value
        block = extra["block"]
        number = self.numbers[block[0], block[1], extra.get("block_index", 0)]
        key_context, value_context = plan.contexts(context, value)
        if plan.mask is None:
            return n, key_context, value_context
        keys, values = (self._offsets_of(plan.applied, kind, number, context) for kind in ("key_offsets", "value_offsets"))
        return n, plan.with_offsets(key_context, keys), plan.with_offsets(value_context, values)

    def _plan(self, context: Tensor, sigmas: Tensor) -> "_Plan | None":
        # Read once for all blocks, and not at all where nothing depends on it: reading waits for the device.
        sigma = 0.0 if all(entry.steady for entry in self.entries) else float(sigmas.flatten()[0])
        inactive = frozenset(entry.applied.mention for entry in self.entries if not entry.active(sigma))
        replaced = self._without(context, inactive) if inactive else None
        read = context if replaced is None else replaced
        masks, staged, own = [], [], None
        # One person under two triggers is recognised once, wherever either stands.
        for entry in {entry.applied.key: entry for entry in self.entries if entry.active(sigma)}.values():
            applied = entry.applied
            if not applied.faded.key_offsets and not applied.faded.stages:
                continue
            remembered, stages = self._remembered(applied, context)
            if remembered is None:
                continue
            own = signatures(read) if own is None else own
            found = match(own, remembered)
            if stages is not None:
                keys, values = stages[stage_at(sigma, entry.stages)]
                staged.append((found.any(-1, keepdim=True), found.int().argmax(-1), keys, values))
            if applied.faded.key_offsets:
                # Remembered prompts come one after another, n rows each: position r holds token r mod n.
                masks.append((applied, found.unflatten(-1, (-1, applied.identity.token_count)).any(-2)))
        if replaced is None and not masks and not staged:
            return None
        return _Plan(replaced, staged, masks, context.dtype)

    def _remembered(self, applied: AppliedIdentity, context: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The signatures (R,) of every row this identity has left in a prompt, and what stands for it in each stage, (S, 2, R, d), as the UNet
        reads them."""
        key = (applied.key, context.dtype, context.device)
        cached = self._rows.get(key)
        if cached is None or cached[0] != MENTIONS.version:
            mentions = MENTIONS.of(applied.key)
            rows = signatures(torch.cat([mention.rows for mention in mentions]).to(context)) if mentions else None
            stages = torch.cat([mention.staged for mention in mentions], dim=2).to(context) if mentions and applied.faded.stages else None
            self._rows[key] = cached = (MENTIONS.version, rows, stages)
        return cached[1:]

    def _without(self, context: Tensor, inactive: frozenset[str]) -> Tensor | None:
        """The context as if the inactive identities' triggers were plain words; None when it mentions none of them."""
        result = None
        for prompt in MENTIONS.bounded(inactive):
            found, where = prompt.locate(context)
            result = torch.where(found[..., None], prompt.variant(inactive).to(context)[where], context if result is None else result)
        return result

    def _offsets_of(self, applied: tuple[AppliedIdentity, ...], kind: str, number: int, context: Tensor) -> Tensor:
        """What block ``number`` adds at the identities' positions, one after another: (Σn, d)."""
        key = (tuple(one.key for one in applied), kind, number, context.dtype, context.device)
        if key not in self._offsets:
            self._offsets[key] = torch.cat([getattr(one.faded, kind)[number] for one in applied]).to(context)
        return self._offsets[key]


class _Plan:
    """What one UNet call's context holds: a replacement for it, the rows of this stage, and (B, L, n) masks of identities' own positions.

    Args:
        staged: for each identity in stages: (B, L, 1) where it stands, (B, L) as which of its remembered rows, and (R, d) what keys and what
            values read there at this noise level.
    """

    def __init__(self, context: Tensor | None, staged: list[tuple], masks: list[tuple[AppliedIdentity, Tensor]], dtype: torch.dtype):
        self._context, self._staged = context, staged
        self._contexts: tuple[Tensor, Tensor, Tensor, Tensor] | None = None
        self.applied = tuple(applied for applied, _ in masks)
        self.mask = torch.cat([mask for _, mask in masks], dim=-1).to(dtype).flatten(0, 1) if masks else None

    def contexts(self, context: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The contexts of keys and of values, made once for all blocks; ``value`` differs from ``context`` where another patch made it so."""
        made = self._contexts
        if made is None or made[0] is not context or made[1] is not value:
            keys = context if self._context is None else self._context
            values = keys if value is context else value
            for found, which, own_keys, own_values in self._staged:
                keys, values = torch.where(found, own_keys[which], keys), torch.where(found, own_values[which], values)
            self._contexts = made = (context, value, keys, values)
        return made[2], made[3]

    def with_offsets(self, context: Tensor, rows: Tensor) -> Tensor:
        """A context (B, L, d) with each identity's rows (Σn, d) added where it stands; elsewhere it is bit for bit the same."""
        return torch.addmm(context.flatten(0, 1), self.mask, rows).view(context.shape)
