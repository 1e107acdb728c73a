"""Identities in the CLIP text-encoding graph: ``<anna>`` becomes her pseudo-tokens in any text node, and her adapter acts on the result.

A patched CLIP is a clone whose tokenizer and text encoder are shallow copies that share every weight with the original. A prompt that
mentions no identity takes the original's own code path.
"""
from __future__ import annotations

import math
from contextlib import contextmanager
from typing import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ...idea_engine.applying.applied import AppliedIdentity, Place, adapt, inactive_sets
from ...idea_engine.errors import TriggerError
from .carried import NOBODY, Layer, Staged, Without, carry
from .encoder_parts import EncoderPart
from .mentions import MENTIONS, BoundedPrompt, Mention
from .places import find_places, standing, starts, with_layers
from .plain_words import without
from .stand_ins import reading_stand_ins
from .trigger_tokens import ForeignChunks, subclassed, with_people
from .understood import understood

_APPLIED = "_idea_applied"


def with_identity(clip, applied: AppliedIdentity):
    """A clone of ``clip`` that also understands one more identity's trigger.

    Raises:
        TriggerError: the trigger is taken by another identity applied before.
        UnsupportedHostError: this ComfyUI cuts prompts in a way that we do not understand.
    """
    before = applied_to(clip)
    if any(other.identity.trigger == applied.identity.trigger for other in before):
        raise TriggerError(
            f"Two identities answer to {applied.identity.trigger}, so the prompt could not tell them apart. "
            "Give one of them another word in the trigger field of its Apply ID Adapter node."
        )
    everyone = (*before, applied)
    with understood("holds its text encoders", "was a CLIP with a tokenizer and a cond_stage_model"):
        clone = clip.clone()
        clone.tokenizer = with_people(clone.tokenizer, everyone)
        clone.cond_stage_model = subclassed(clone.cond_stage_model, _IdentityEncoder, **{_APPLIED: everyone, "_idea_inside": False})
    _check_that_it_is_read(clone, applied)
    return clone


def applied_to(clip) -> tuple[AppliedIdentity, ...]:
    """The identities that a CLIP understands, in the order in which they were applied."""
    return getattr(clip.cond_stage_model, _APPLIED, ())


def _check_that_it_is_read(clip, applied: AppliedIdentity) -> None:
    """Try the trigger once, through all that is private to the host, so that a host that has changed is met here and not in a prompt."""
    trigger = applied.identity.trigger
    with understood("cuts prompts", f"were lists of (token, weight) with the rows of {trigger} among them"):
        found = find_places(clip.tokenize(trigger), [applied])
        if len(found) != 1:
            raise ValueError(f"{len(found)} persons in the tokens of a prompt that mentions one")


class _IdentityEncoder:
    """Mixed into a host text encoder: applies the adapters and endings where identities are mentioned, and returns what carries them along."""

    def __getattr__(self, name: str):
        found = super().__getattr__(name)
        # A node that asks an encoder of several for its part alone gets a part that is finished once the parts are joined.
        several = name.startswith("clip_") and len(getattr(self, _APPLIED)[0].identity.tokens) > 1
        return EncoderPart(self, name, found) if several and not self._idea_inside else found

    def encode_token_weights(self, token_weight_pairs, *args, **kwargs):
        applied = getattr(self, _APPLIED)
        forward = super().encode_token_weights

        def encode(pairs):
            return forward(pairs, *args, **kwargs)

        with _inside(self):
            if not isinstance(token_weight_pairs, Mapping):
                return encode(token_weight_pairs)
            encoded, places = _read(self, token_weight_pairs, applied, encode)
            if not places:
                return encoded
            condition, pooled = _carrying(self, encoded, places, token_weight_pairs, applied, encode)
            return (condition, pooled, *encoded[2:])


@contextmanager
def _inside(encoder) -> Iterator[None]:
    before = encoder._idea_inside
    object.__setattr__(encoder, "_idea_inside", True)
    try:
        yield
    finally:
        object.__setattr__(encoder, "_idea_inside", before)


def _read(encoder, pairs: Mapping[str, Sequence], applied: Sequence[AppliedIdentity], encode: Callable):
    """What the host answers for a prompt, and where people stand in it."""
    foreign = {letter: chunks for letter, chunks in pairs.items() if isinstance(chunks, ForeignChunks)}
    if foreign:
        modules = {letter: encoder._modules[f"clip_{letter}"] for letter in foreign}
        with reading_stand_ins(modules, foreign) as seen:
            encoded = encode(pairs)
        return encoded, seen.places(encoded[0].shape[1])
    return encode(pairs), find_places(pairs, applied)


def _carrying(encoder, encoded: Sequence, places: Sequence[Place], pairs, applied: Sequence[AppliedIdentity], encode: Callable):
    """The finished condition with its layers, who stands where, and the same prompt without those who come and go; and its pooled feature."""
    finished, layers = _finished(encoded[0], places, pairs, encode, NOBODY)
    pooled: dict[Layer, Tensor] = {}
    mentioned = {place.applied.mention for place in places}
    variants: dict[frozenset[str], Tensor] = {}
    partial = [one for one in applied if one.partial and one.mention in mentioned]
    for absent in inactive_sets(partial) if partial else ():
        left = without(pairs, absent)
        again, others = _read(encoder, left, applied, encode)
        variants[absent], more = _finished(again[0], others, left, encode, absent)
        layers |= {**more, Without(absent): variants[absent]}
        pooled[Without(absent)] = again[1]
    length = math.lcm(finished.shape[1], *(variant.shape[1] for variant in variants.values()))
    if variants:
        repeats = length // finished.shape[1]
        held = {absent: _repeated(variant, length)[0] for absent, variant in variants.items()}
        MENTIONS.remember_bounded(BoundedPrompt(finished[0], repeats, held, tuple(position for place in places for position in place.positions)))
    return carry(_repeated(finished, length), {key: _repeated(layer, length) for key, layer in layers.items()}), with_layers(encoded[1], pooled)


def _finished(condition: Tensor, places: Sequence[Place], pairs, encode: Callable, absent: frozenset[str]) -> tuple[Tensor, dict[Layer, Tensor]]:
    """:func:`adapt`, and what the UNet side must know of the mentions afterwards, in every stage."""
    layers: dict[Layer, Tensor] = {}
    staged = {}
    for applied in {place.applied.key: place.applied for place in places}.values():
        if applied.faded.stages:
            staged[applied.key] = [adapt(variant, places) for variant in encode_stages(condition, pairs, applied, encode)]
    condition = adapt(condition, places)
    for place in places:
        positions, variants = list(place.positions), staged.get(place.applied.key)
        rows = variants and torch.stack([variant[0, positions] for variant in variants]).unflatten(0, (-1, 2))
        MENTIONS.remember(place.applied.key, Mention(condition[0, positions], rows, place.weight))
        for number, variant in enumerate(variants or ()):
            layers[Staged(place.applied.mention, number // 2, number % 2, absent)] = variant
    return condition, {**layers, **standing(places, condition, absent)}


def encode_stages(condition: Tensor, pairs: Mapping[str, Sequence], applied: AppliedIdentity, encode: Callable) -> list[Tensor]:
    """The prompt as the first stage's keys read it, as its values do, as the next stage's keys do, …: 2·S conditions (1, L, d).

    The host encodes them in one batch: to it they are the chunks of one very long prompt.

    Args:
        condition: the prompt with the plain tokens, before any adapter; stands for whatever reads exactly these.
    """
    plain_tokens = applied.faded.tokens
    every = [tokens for stage in applied.faded.stages for tokens in (stage.key, stage.value)]
    own = [tokens for tokens in every if not _same(tokens, plain_tokens)]
    encoded = iter(())
    if own and not any(isinstance(chunks, ForeignChunks) for chunks in pairs.values()):
        count = min(map(len, pairs.values()))  # of SDXL's two texts the host keeps as much as the shorter has
        joined = {
            letter: [chunk for tokens in own for chunk in _exchanged(chunks[:count], applied, plain_tokens[f"clip_{letter}"], tokens[f"clip_{letter}"])]
            for letter, chunks in pairs.items()
        }
        encoded = iter(encode(joined)[0].unflatten(1, (len(own), -1)).unbind(1))
    return [condition if _same(tokens, plain_tokens) else next(encoded, condition) for tokens in every]


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(rows, other[key]) for key, rows in one.items())


def _exchanged(chunks: Sequence[Sequence[tuple]], applied: AppliedIdentity, old: Tensor, new: Tensor) -> list[list[tuple]]:
    """Chunks of (token, weight, …) with the rows ``new`` (n, w) wherever the person stands whose rows are ``old``."""
    entries = [entry for chunk in chunks for entry in chunk]
    for start in starts([entry[0] for entry in entries], applied, old, {}):
        entries[start : start + len(new)] = [(row, *entry[1:]) for row, entry in zip(new, entries[start:])]
    left = iter(entries)
    return [[next(left) for _ in chunk] for chunk in chunks]


def _repeated(condition: Tensor, length: int) -> Tensor:
    """Attention does not change when a whole context is repeated, so prompts that differ in length meet at a common multiple."""
    return condition if condition.shape[1] == length else condition.repeat(1, length // condition.shape[1], 1)
