"""Identities in the UNet's cross-attention, through the host's public patch points only."""
from __future__ import annotations

import math
import weakref
from itertools import combinations

import torch
from torch import Tensor, nn

from ...idea_engine.applying.applied import AppliedIdentity
from ...idea_engine.backends.noise_stages import stage_at
from .carried import NOBODY, CarriedCondition, Staged, Without, plain
from .context_plan import CARRIED, NOTHING, ContextPlan, KeptCondition, Ranged, Remembered, whole
from .family import cross_attention_blocks
from .masks import Region, blended_difference, regions
from .mentions import MENTIONS, found_rows, signatures
from .uncompiled import uncompiled
from .understood import understood

_KEY = "idea"  # of our wrappers
_MASKED = "idea_masked"  # in a block's own options
_PRESENT = "present"  # beside the plans of one UNet call


def with_identity(model, applied: AppliedIdentity):
    """A clone of ``model`` in which the identity's keys and values act; the original is untouched.

    Raises: UnsupportedHostError: this ComfyUI's MODEL takes patches in a way that we do not understand.
    """
    with understood("patches a MODEL", "were lists of attn2_patch and attn2_output_patch in its transformer_options, and wrappers"):
        return _patched(model, applied)


def _patched(model, applied: AppliedIdentity):
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
        patches["attn2_output_patch"] = [MaskedOutput(ours)] * masked + after  # see arranged()
    _add_global_weights(clone, applied, [path for path, _ in blocks.values()])
    _wrap(clone, ours)
    return clone


def _wrap(model, ours: "IdentityAttention") -> None:
    """Where the host has wrappers: our patches work on what all others have made, and a sampling in which somebody did not act is spoken of."""
    from .silence import Listener

    try:
        from comfy.patcher_extension import WrappersMP

        wrappers = ((WrappersMP.APPLY_MODEL, arranged), (WrappersMP.OUTER_SAMPLE, Listener(ours)))
    except (ImportError, AttributeError):
        return  # a host of 2024, or one that has given them up: patches act in the order of their nodes
    for kind, wrapper in wrappers:
        model.remove_wrappers_with_key(kind, _KEY)
        model.add_wrapper_with_key(kind, _KEY, wrapper)


def arranged(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **kwargs):
    """An ``apply_model`` wrapper: keys and values are ours to read last, and outputs ours to complete first.

    Nodes behind ours, and hooks in a conditioning, put their patches at the end of the list. Some of them widen the batch or bring conditions of
    their own (attention couple), and undo it in the output patch; between the two we see all that the block will attend to.
    """
    patches = transformer_options.get("patches", {})
    reads, completes = patches.get("attn2_patch", []), patches.get("attn2_output_patch", [])
    own = [one for one in reads if isinstance(one, IdentityAttention)]
    last = [one for one in reads if getattr(one, "sees_all", False)]
    others = [one for one in reads if one not in own and one not in last]
    early = [one for one in completes if isinstance(one, MaskedOutput)]
    made = {"attn2_patch": others + own + last}
    if completes:
        made["attn2_output_patch"] = early + [one for one in completes if not isinstance(one, MaskedOutput)]
    transformer_options = {**transformer_options, "patches": {**patches, **made}}
    if isinstance(kwargs.get("y"), CarriedCondition):
        kwargs["y"] = own[-1].pooled(kwargs["y"], transformer_options) if own else plain(kwargs["y"])
    if isinstance(c_crossattn, CarriedCondition) and not others:
        # Nobody else asks for it, so a network that is compiled meets ordinary tensors only.
        transformer_options[CARRIED], c_crossattn = KeptCondition(c_crossattn), plain(c_crossattn)
    return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)


def _add_global_weights(model, applied: AppliedIdentity, paths: list[str]) -> None:
    """The recipe 'paper' changes to_k and to_v themselves; the host's weight patches add and remove that exactly."""
    changes = {}
    for projection, weights in (("to_k", applied.faded.key_weights), ("to_v", applied.faded.value_weights)):
        for number, change in weights.items():
            changes[f"diffusion_model.{paths[number]}.attn2.{projection}.weight"] = ("diff", (change.float(),))
    if changes:
        model.add_patches(changes, 1.0)


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
        self.met: dict[str, Tensor | bool] = {}  # identity or mention → whether it stood in a prompt, since somebody last looked
        self._scheduled: tuple[object, object, tuple[Ranged, ...]] | None = None
        self._seen: tuple[Tensor, Tensor, Tensor, int, dict] | None = None
        self._rows: dict[tuple, tuple[int, Remembered | None]] = {}
        self._offsets: dict[tuple, Tensor] = {}

    def __deepcopy__(self, memo) -> "IdentityAttention":
        return self  # the host deep-copies model options with every clone; the state here is only a cache

    @uncompiled
    def __call__(self, n: Tensor, context: Tensor, value: Tensor, extra: dict):
        # All blocks of one UNet call get the same context and noise level objects; what they hold is found out once.
        context, value = whole(context, extra), whole(value, extra)
        sigmas, seen = extra.get("sigmas"), self._seen
        if seen is None or seen[0] is not context or seen[1] is not value or seen[2] is not sigmas or seen[3] != MENTIONS.version:
            self._seen = seen = (context, value, sigmas, MENTIONS.version, {})
        self._schedule(extra.get("sample_sigmas"))
        block = extra["block"]
        number = self.numbers[block[0], block[1], extra.get("block_index", 0)]
        if not self.masks:
            return n, *self._contexts(NOBODY, number, context, value, sigmas)
        base, *others = self._regions(n, context, sigmas, extra)
        contexts = self._contexts(base.absent, number, context, value, sigmas)
        if others:
            # Left for MaskedOutput: the host hands it the same dict, at the end of this very block.
            extra[_MASKED] = (number, n, contexts, [(part.weight, *self._contexts(part.absent, number, context, value, sigmas)) for part in others])
        return n, *contexts

    def _schedule(self, steps: Tensor | None) -> None:
        """Everybody within the schedule that is sampled with now: a node behind ours may have exchanged it."""
        sampling = self._base().model_sampling
        if self._scheduled is None or self._scheduled[0] is not sampling or self._scheduled[1] is not steps:
            levels = None if steps is None else steps.tolist()
            self._scheduled = (sampling, steps, tuple(Ranged.within(one, sampling, levels) for one in self.people))

    @property
    def entries(self) -> tuple[Ranged, ...]:
        """Everybody, with the noise levels between which they act."""
        return self._scheduled[2]

    def fell_into(self, applied: AppliedIdentity) -> bool:
        """Whether a step of the last sampling was within the range of a person; True where the host does not tell its steps."""
        if self._scheduled is None or self._scheduled[1] is None or not applied.bounded:
            return True
        entry = next(entry for entry in self.entries if entry.applied is applied)
        return any(entry.active(level) for level in self._scheduled[1].tolist()[:-1])

    def pooled(self, vector: CarriedCondition, options: dict) -> Tensor:
        """SDXL's vector condition (B, v), which holds the prompt's pooled feature, without those who are out of their range. It knows no places,
        so somebody with a mask has the share of it that their mask has of the picture.
        """
        self._schedule(options.get("sample_sigmas"))
        sigma = self._sigma(options["sigmas"])
        inactive = frozenset(entry.applied.mention for entry in self.entries if not entry.active(sigma))
        shares = {mention: float(mask.mean()) for mention, mask in self.masks.items() if mention not in inactive}
        partly = [mention for mention, share in shares.items() if share < 1.0 and vector.nearest(inactive | {mention}) != vector.nearest(inactive)]
        parts = []
        for size in range(len(partly) + 1):
            for absent in combinations(partly, size):
                weight = math.prod(1.0 - shares[mention] if mention in absent else shares[mention] for mention in partly)
                if weight > 0.0:
                    parts.append((weight, vector.layer(Without(inactive | frozenset(absent)))))
        return parts[0][1] if len(parts) == 1 else sum(weight * part for weight, part in parts)

    def _contexts(self, absent: frozenset[str], number: int, context: Tensor, value: Tensor, sigmas: Tensor) -> tuple[Tensor, Tensor]:
        """What keys and values of block ``number`` read where the mentions ``absent`` are masked out."""
        plans = self._seen[4]
        if absent not in plans:
            keys = self._plan(context, sigmas, absent, 0)
            # Another patch before ours may have given values a context of their own, such as every other row.
            own = value is context or (not isinstance(value, CarriedCondition) and value.shape == context.shape)
            plans[absent] = (keys, keys.for_values(context, value) if own else self._plan(value, sigmas, absent, 1))
        keys, values = plans[absent]
        return (
            keys.read("keys", plain(context), lambda applied, like: self._offsets_of(applied, "key_offsets", number, like)),
            values.read("values", plain(value), lambda applied, like: self._offsets_of(applied, "value_offsets", number, like)),
        )

    def _regions(self, n: Tensor, context: Tensor, sigmas: Tensor, extra: dict) -> list[Region]:
        """Who is where in this block. Who is not mentioned, or not active at this noise level, is nowhere, at no cost."""
        kept = self._seen[4]
        if _PRESENT not in kept:
            sigma = self._sigma(sigmas)
            masked = [entry.applied.mention for entry in self.entries if entry.applied.mask is not None and entry.active(sigma)]
            kept[_PRESENT] = [mention for mention in masked if self._reads_otherwise_without(context, mention)]
        height, width = extra["original_shape"][-2:]
        key = (n.shape[:2], height, width)
        if key not in kept:
            # A patch before ours may have widened the batch: it still holds whole numbers of the pictures.
            pictures = max(1, extra["original_shape"][0] // max(1, len(extra.get("cond_or_uncond", (0,)))))
            copies = max(1, n.shape[0] // pictures)
            masks = {mention: self.masks[mention] for mention in kept[_PRESENT]}
            found = regions(masks, height, width, n.shape[1], n.shape[0] // copies, copies)
            kept[key] = [Region(region.absent, region.weight.to(n.device)) for region in found]
        return kept[key]

    def _reads_otherwise_without(self, context: Tensor, mention: str) -> bool:
        if isinstance(context, CarriedCondition):
            near = context.nearest(frozenset({mention}))
            return bool(near) and not torch.equal(plain(context), context.layer(Without(near)))
        left = self._without(context, frozenset({mention}))
        return left is not None and not torch.equal(left, context)

    def _sigma(self, sigmas: Tensor) -> float:
        """The noise level. Not read where nothing depends on it: reading waits for the device."""
        return 0.0 if all(entry.steady for entry in self.entries) else float(sigmas.flatten()[0])

    def _plan(self, context: Tensor, sigmas: Tensor, absent: frozenset[str], part: int) -> ContextPlan:
        """Args: part: which rows of a stage stand in a context that is read by keys and values alike (0), or by values alone (1)."""
        sigma = self._sigma(sigmas)
        inactive = absent | {entry.applied.mention for entry in self.entries if not entry.active(sigma)}
        active = [entry for entry in self.entries if entry.applied.mention not in inactive]
        if isinstance(context, CarriedCondition):
            return self._carried_plan(context, inactive, active, sigma, part)
        return self._recognised_plan(context, inactive, active, sigma, part)

    def _carried_plan(self, context: CarriedCondition, inactive: frozenset[str], active: list[Ranged], sigma: float, part: int) -> ContextPlan:
        """What a context holds that says itself who stands where."""
        near = context.nearest(inactive)
        replaced = context.layer(Without(near)) if near else None
        held = context.mentions()
        self.met.update(dict.fromkeys(held, True))
        masks, staged = [], []
        for entry in active:
            applied = entry.applied
            if applied.mention not in held or not (applied.faded.key_offsets or applied.faded.stages):
                continue
            weights = context.weights(applied.mention, applied.identity.token_count, near)
            if applied.faded.stages:
                stage = stage_at(sigma, entry.stages)
                if Staged(applied.mention, stage, 0, near) in context.layers:
                    own = [context.layer(Staged(applied.mention, stage, kind, near)) for kind in (0, 1)]
                    staged.append(((weights != 0).any(-1, keepdim=True), *own))
            if applied.faded.key_offsets:
                masks.append((applied, weights))
        return ContextPlan(replaced, staged, masks, part)

    def _recognised_plan(self, context: Tensor, inactive: frozenset[str], active: list[Ranged], sigma: float, part: int) -> ContextPlan:
        """What a context holds whose numbers alone have arrived: people are recognised by their rows."""
        replaced = self._without(context, inactive) if inactive else None
        read = context if replaced is None else replaced
        masks, staged, own = [], [], None
        # One person under two triggers is recognised once, wherever either stands.
        for entry in {entry.applied.key: entry for entry in active}.values():
            applied = entry.applied
            remembered = self._remembered(applied, context)
            if remembered is None:
                continue
            own = signatures(read) if own is None else own
            found, number = found_rows(own, remembered.rows, remembered.order)
            self.met[applied.key] = self.met.get(applied.key, False) | found.any()
            if remembered.stages is not None:
                keys, values = remembered.stages[stage_at(sigma, entry.stages)]
                staged.append((found[..., None], keys[number], values[number]))
            if applied.faded.key_offsets:
                count = applied.identity.token_count
                token = torch.arange(count, device=number.device) == (number % count)[..., None]
                masks.append((applied, (token & found[..., None]) * remembered.weights[number][..., None]))
        if replaced is None and not masks and not staged:
            return NOTHING
        return ContextPlan(replaced, staged, masks, part)

    def _remembered(self, applied: AppliedIdentity, context: Tensor) -> Remembered | None:
        """Every row this identity has left in a prompt, as the UNet reads them."""
        key = (applied.key, context.dtype, context.device)
        cached = self._rows.get(key)
        if cached is None or cached[0] != MENTIONS.version:
            mentions = MENTIONS.of(applied.key)
            self._rows[key] = cached = (MENTIONS.version, Remembered.of(mentions, applied, context) if mentions else None)
        return cached[1]

    def _without(self, context: Tensor, inactive: frozenset[str]) -> Tensor | None:
        """The context as if the inactive identities' triggers were plain words; None when it mentions none of them."""
        result = None
        for prompt in MENTIONS.bounded_in(context):
            if any(missing <= inactive for missing in prompt.without):
                self.met.update({mention: True for missing in prompt.without for mention in missing})
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
