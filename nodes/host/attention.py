"""Identities in the UNet's cross-attention, through the host's public patch points only."""
from __future__ import annotations

import weakref
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...idea_engine.applied import AppliedIdentity
from ...idea_engine.stages import stage_at, stage_bounds
from .family import cross_attention_blocks
from .masks import Region, blended_difference, regions
from .mentions import MENTIONS, equal_signatures, signatures
from .uncompiled import uncompiled

_MASKED = "idea_masked"  # in a block's own options
_PRESENT = "present"  # beside the plans of one UNet call


def with_identity(model, applied: AppliedIdentity):
    """A clone of ``model`` in which the identity's keys and values act; the original is untouched."""
    clone = model.clone()
    blocks = cross_attention_blocks(model.model.diffusion_model)
    numbers = {key: number for number, key in enumerate(blocks)}
    patches = clone.model_options["transformer_options"].setdefault("patches", {})
    others = [patch for patch in patches.get("attn2_patch", []) if not isinstance(patch, IdentityAttention)]
    before = [patch for patch in patches.get("attn2_patch", []) if isinstance(patch, IdentityAttention)]
    people = (*(one for patch in before for one in patch.people), applied)
    ours = IdentityAttention(people, model.model, numbers, [block.attn2 for _, block in blocks.values()])
    patches["attn2_patch"] = others + [ours]
    after = [patch for patch in patches.get("attn2_output_patch", []) if not isinstance(patch, MaskedOutput)]
    masked = any(one.mask is not None for one in people)
    if masked or len(after) != len(patches.get("attn2_output_patch", [])):
        patches["attn2_output_patch"] = after + [MaskedOutput(ours)] * masked
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
    stages: tuple[float, ...]

    @classmethod
    def within(cls, applied: AppliedIdentity, sampling) -> "_Ranged":
        """Args: sampling: the host's object that knows the noise schedule."""
        stages = stage_bounds(sampling.sigmas.tolist(), len(applied.identity.stages)) if applied.identity.stages else ()
        return cls(applied, float(sampling.percent_to_sigma(applied.start)), float(sampling.percent_to_sigma(applied.end)), stages)

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

    def __init__(self, people: tuple[AppliedIdentity, ...], base: nn.Module, numbers: dict[tuple[str, int, int], int], attentions: list[nn.Module]):
        """Args: base: the host's model around the UNet, which holds the noise schedule while it samples. It is not kept alive from here: a host
        that finds a model in use after its last MODEL is gone collects all of its memory again and again.
        """
        self.people, self._base, self.numbers, self.attentions = people, weakref.ref(base), numbers, attentions
        self.masks = {one.mention: one.mask for one in people if one.mask is not None}
        self._scheduled: tuple[object, tuple[_Ranged, ...]] | None = None
        self._seen: tuple[Tensor, Tensor, int, dict] | None = None
        self._rows: dict[tuple, tuple[int, Tensor, Tensor | None]] = {}
        self._offsets: dict[tuple, Tensor] = {}

    def __deepcopy__(self, memo) -> "IdentityAttention":
        return self  # the host deep-copies model options with every clone; the state here is only a cache

    @uncompiled
    def __call__(self, n: Tensor, context: Tensor, value: Tensor, extra: dict):
        # All blocks of one UNet call get the same context and noise level objects; what they hold is found out once.
        sigmas, seen = extra.get("sigmas"), self._seen
        if seen is None or seen[0] is not context or seen[1] is not sigmas or seen[2] != MENTIONS.version:
            self._seen = seen = (context, sigmas, MENTIONS.version, {})
        block = extra["block"]
        number = self.numbers[block[0], block[1], extra.get("block_index", 0)]
        if not self.masks:
            return n, *self._contexts(frozenset(), number, context, value, sigmas)
        base, *others = self._regions(n, context, sigmas, extra)
        contexts = self._contexts(base.absent, number, context, value, sigmas)
        if others:
            # Left for MaskedOutput: the host hands it the same dict, at the end of this very block.
            extra[_MASKED] = (number, n, contexts, [(part.weight, *self._contexts(part.absent, number, context, value, sigmas)) for part in others])
        return n, *contexts

    @property
    def entries(self) -> tuple[_Ranged, ...]:
        """Everybody within the schedule that is sampled with now: a node behind ours may have exchanged it."""
        sampling = self._base().model_sampling
        if self._scheduled is None or self._scheduled[0] is not sampling:
            self._scheduled = (sampling, tuple(_Ranged.within(one, sampling) for one in self.people))
        return self._scheduled[1]

    def _contexts(self, absent: frozenset[str], number: int, context: Tensor, value: Tensor, sigmas: Tensor) -> tuple[Tensor, Tensor]:
        """What keys and values of block ``number`` read where the mentions ``absent`` are masked out."""
        plans = self._seen[3]
        if absent not in plans:
            plans[absent] = self._plan(context, sigmas, absent)
        plan = plans[absent]
        if plan is None:
            return context, value
        key_context, value_context = plan.contexts(context, value)
        if plan.mask is None:
            return key_context, value_context
        keys, values = (self._offsets_of(plan.applied, kind, number, context) for kind in ("key_offsets", "value_offsets"))
        return plan.with_offsets(key_context, keys), plan.with_offsets(value_context, values)

    def _regions(self, n: Tensor, context: Tensor, sigmas: Tensor, extra: dict) -> list[Region]:
        """Who is where in this block. Who is not mentioned, or not active at this noise level, is nowhere, at no cost."""
        kept = self._seen[3]
        if _PRESENT not in kept:
            sigma = self._sigma(sigmas)
            masked = [entry.applied.mention for entry in self.entries if entry.applied.mask is not None and entry.active(sigma)]
            without = {mention: self._without(context, frozenset({mention})) for mention in masked}
            kept[_PRESENT] = [mention for mention, plain in without.items() if plain is not None and not torch.equal(plain, context)]
        height, width = extra["original_shape"][-2:]
        key = (n.shape[:2], height, width)
        if key not in kept:
            copies = max(1, len(extra.get("cond_or_uncond", (0,))))
            masks = {mention: self.masks[mention] for mention in kept[_PRESENT]}
            found = regions(masks, height, width, n.shape[1], max(1, n.shape[0] // copies), copies)
            kept[key] = [Region(region.absent, region.weight.to(n.device)) for region in found]
        return kept[key]

    def _sigma(self, sigmas: Tensor) -> float:
        """The noise level. Not read where nothing depends on it: reading waits for the device."""
        return 0.0 if all(entry.steady for entry in self.entries) else float(sigmas.flatten()[0])

    def _plan(self, context: Tensor, sigmas: Tensor, absent: frozenset[str]) -> "_Plan | None":
        sigma = self._sigma(sigmas)
        inactive = absent | {entry.applied.mention for entry in self.entries if not entry.active(sigma)}
        replaced = self._without(context, inactive) if inactive else None
        read = context if replaced is None else replaced
        masks, staged, own = [], [], None
        # One person under two triggers is recognised once, wherever either stands.
        for entry in {entry.applied.key: entry for entry in self.entries if entry.applied.mention not in inactive}.values():
            applied = entry.applied
            if not applied.faded.key_offsets and not applied.faded.stages:
                continue
            remembered, stages = self._remembered(applied, context)
            if remembered is None:
                continue
            own = signatures(read) if own is None else own
            found = equal_signatures(own, remembered)
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


class MaskedOutput:
    """An ``attn2_output_patch``: adds to each block's output what the other regions of the masks ask for; nothing where there are none."""

    def __init__(self, attention: IdentityAttention):
        self.attention = attention

    def __deepcopy__(self, memo) -> "MaskedOutput":
        return self

    @uncompiled
    def __call__(self, n: Tensor, extra: dict) -> Tensor:
        left = extra.pop(_MASKED, None)
        if left is None:
            return n
        number, features, base, others = left
        return n + blended_difference(self.attention.attentions[number], features, extra["n_heads"], base, others).to(n)


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
