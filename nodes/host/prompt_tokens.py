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

from ...idea_engine.applied import CHUNK, AppliedIdentity, Place, adapt, inactive_sets
from ...idea_engine.clip_tokenizer import END
from ...idea_engine.errors import TriggerError, UnsupportedHostError
from .carried import NOBODY, CarriedCondition, Ending, Layer, Staged, Standing, Without, carry, plain, spread
from .mentions import MENTIONS, BoundedPrompt, Mention
from .stand_ins import reading_stand_ins
from .trigger_tokens import ForeignChunks, mark_of, subclassed, with_people, without

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
    try:
        found = find_places(clip.tokenize(applied.identity.trigger), [applied])
        wrong = None if len(found) == 1 else f"{len(found)} persons in the tokens of a prompt that mentions one"
    except Exception as error:  # whatever a changed host raises
        wrong = f"{type(error).__name__}: {error}"
    if wrong is not None:
        from .paths import host_version

        raise UnsupportedHostError(
            f"ComfyUI {host_version()} cuts prompts in a way that this version of ID-EA does not understand ({wrong}); expected were lists of "
            f"(token, weight) with the rows of {applied.identity.trigger} among them. Update ID-EA, or use a ComfyUI that its README names as tested."
        )


class _IdentityEncoder:
    """Mixed into a host text encoder: applies the adapters and endings where identities are mentioned, and returns what carries them along."""

    def __getattr__(self, name: str):
        found = super().__getattr__(name)
        # A node that asks an encoder of several for its part alone gets a part that is finished once the parts are joined.
        several = name.startswith("clip_") and len(getattr(self, _APPLIED)[0].identity.tokens) > 1
        return _EncoderPart(self, name, found) if several and not self._idea_inside else found

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
    return carry(_repeated(finished, length), {key: _repeated(layer, length) for key, layer in layers.items()}), _with_layers(encoded[1], pooled)


def _with_layers(pooled: Tensor | None, layers: dict[Layer, Tensor]) -> Tensor | None:
    return carry(pooled, layers) if layers and all(isinstance(one, Tensor) for one in (pooled, *layers.values())) else pooled


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
    return condition, {**layers, **_standing(places, condition, absent)}


def _standing(places: Sequence[Place], condition: Tensor, absent: frozenset[str] = NOBODY, endings: bool = False) -> dict[Layer, Tensor]:
    """The layers that say where people stand in a condition (1, L, d); ``endings``: and where the ending of each belongs."""
    weights: dict[Layer, Tensor] = {}

    def put(key: Layer, positions: Sequence[int], weight: float) -> None:
        row = weights.setdefault(key, torch.zeros(condition.shape[:2], dtype=condition.dtype, device=condition.device))
        row[:, list(positions)] = weight

    for place in sorted(places, key=lambda one: abs(one.weight)):  # of several in a chunk the heaviest decides on the ending
        for token, position in enumerate(place.positions):
            put(Standing(place.applied.mention, token, absent), (position,), place.weight)
        if endings:
            put(Ending(place.applied.mention, absent), place.ending, place.weight)
    return {key: spread(row, condition.shape[-1]) for key, row in weights.items()}


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
    for start in _starts([entry[0] for entry in entries], applied, old, {}):
        entries[start : start + len(new)] = [(row, *entry[1:]) for row, entry in zip(new, entries[start:])]
    left = iter(entries)
    return [[next(left) for _ in chunk] for chunk in chunks]


def _repeated(condition: Tensor, length: int) -> Tensor:
    """Attention does not change when a whole context is repeated, so prompts that differ in length meet at a common multiple."""
    return condition if condition.shape[1] == length else condition.repeat(1, length // condition.shape[1], 1)


def find_places(pairs, applied: Sequence[AppliedIdentity]) -> list[Place]:
    """Where each identity's pseudo-tokens stand in the host's token chunks.

    Of SDXL's two texts the first that mentions an identity counts. Rows are told apart by who was written; rows that a node has copied, by their
    numbers: then one person under two names has one place at each mention.

    Args:
        pairs: encoder letter (``l``, ``g``, ``h``) → chunks of (token, weight, …), a token being an id or a tensor.
    """
    places = []
    texts = list(pairs.values()) if isinstance(pairs, Mapping) else [pairs]
    claimed: dict[str, dict[int, str]] = {}
    for one in applied:
        for encoder, rows in one.faded.tokens.items():
            letter = encoder.removeprefix("clip_")
            chunks = pairs.get(letter, []) if isinstance(pairs, Mapping) else pairs
            entries = [entry for chunk in chunks for entry in chunk]
            found = _starts([entry[0] for entry in entries], one, rows, claimed.setdefault(letter, {}))
            if found:
                places += [Place(one, tuple(range(start, start + len(rows))), ending_of(texts, start), float(entries[start][1])) for start in found]
                break
    return places


def _starts(tokens: Sequence, applied: AppliedIdentity, rows: Tensor, claimed: dict[int, str]) -> list[int]:
    """Where the n rows of a person begin among tokens; rows without a mark belong to the first who has the same numbers."""
    count = len(rows)
    marks = [mark_of(token) for token in tokens]

    def stands(start: int) -> bool:
        own = marks[start : start + count]
        return len(own) == count and all(mark is not None and mark.applied.mention == applied.mention and mark.token == i for i, mark in enumerate(own))

    found = [start for start, mark in enumerate(marks) if mark is not None and mark.token == 0 and stands(start)]
    copied = [None if mark is not None else token for mark, token in zip(marks, tokens)]
    found += [start for start in _positions(copied, rows) if claimed.setdefault(start, applied.mention) == applied.mention]
    return sorted(found)


def ending_of(texts: Sequence[Sequence], position: int) -> tuple[int, ...]:
    """The positions from the end mark on of the chunk that holds ``position``; of SDXL's two texts the longer one counts."""
    number, offset = divmod(position, CHUNK)
    chunks = [text[number] for text in texts if number < len(text)]
    first = max(next((i for i, entry in enumerate(chunk) if not torch.is_tensor(entry[0]) and entry[0] == END), len(chunk)) for chunk in chunks)
    return tuple(range(position - offset + first, position - offset + min(map(len, chunks))))


def _positions(tokens: Sequence, rows: Tensor) -> list[int]:
    """Where ``rows`` (n, w) follow one another among tokens, each an id or a row (w); nowhere if there are none."""
    found, position = [], 0
    while len(rows) and position <= len(tokens) - len(rows):
        if all(torch.is_tensor(token) and token.shape == row.shape and torch.equal(token, row) for token, row in zip(tokens[position:], rows)):
            found.append(position)
            position += len(rows)
        else:
            position += 1
    return found


class _EncoderPart:
    """One encoder of SDXL's two, as a node sees it that encodes the parts by itself and joins them."""

    def __init__(self, encoder: _IdentityEncoder, name: str, module):
        self._encoder, self._name, self._module = encoder, name, module

    def __getattr__(self, name: str):
        return getattr(self._module, name)

    def __call__(self, *args, **kwargs):
        return self._module(*args, **kwargs)

    def encode_token_weights(self, chunks, *args, **kwargs):
        letter, applied = self._name.removeprefix("clip_"), getattr(self._encoder, _APPLIED)
        width = applied[0].identity.family.context_width

        def encode(part):
            return self._module.encode_token_weights(part, *args, **kwargs)

        encoded = encode(chunks)
        places = find_places({letter: chunks}, applied)
        if not places:
            return encoded
        layers, pooled = _standing(places, encoded[0], endings=True), {}
        mentioned = {place.applied.mention for place in places}
        partial = [one for one in applied if one.partial and one.mention in mentioned]
        for absent in inactive_sets(partial) if partial else ():
            left = _chunks_of_equal_count(without({letter: chunks}, absent)[letter], len(chunks))
            variant, pooled[Without(absent)], *_ = encode(left)
            layers |= {Without(absent): variant, **_standing(find_places({letter: left}, applied), variant, absent, endings=True)}

        def finish(whole: CarriedCondition) -> Tensor:
            return _joined(whole, applied) if whole.shape[-1] == width else whole

        return (carry(encoded[0], layers, finish), _with_layers(encoded[1], pooled), *encoded[2:])


def _chunks_of_equal_count(chunks: Sequence, count: int) -> Sequence:
    return chunks[:count]


def _joined(whole: CarriedCondition, applied: Sequence[AppliedIdentity]) -> CarriedCondition:
    """Adapters and endings on a condition whose parts a node has joined, and on what it reads without those who come and go."""
    layers = {key: layer for key, layer in whole.layers.items() if not isinstance(key, Ending)}

    def adapted(condition: Tensor, absent: frozenset[str]) -> Tensor:
        places = []
        for one in applied:
            if one.mention in absent or one.mention not in whole.mentions():
                continue
            standing, ending = whole.weights(one.mention, one.identity.token_count, absent), whole.ending(one.mention, absent)
            tail = tuple(ending[0, :, 0].nonzero()[:, 0].tolist())
            for start in standing[0, :, 0].nonzero()[:, 0].tolist():
                chunk = range(start // CHUNK * CHUNK, (start // CHUNK + 1) * CHUNK)
                own = tuple(position for position in tail if position in chunk)
                places.append(Place(one, tuple(range(start, start + one.identity.token_count)), own, float(standing[0, start, 0])))
        for place in places:
            MENTIONS.remember(place.applied.key, Mention(condition[0, list(place.positions)], None, place.weight))
        return adapt(condition, places)

    finished = adapted(plain(whole), NOBODY)
    for absent in whole.absences()[1:]:
        layers[Without(absent)] = adapted(whole.layers[Without(absent)], absent)
    return carry(finished, layers)
