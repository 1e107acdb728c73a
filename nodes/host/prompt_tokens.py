"""Identities in the CLIP text-encoding graph: ``<anna>`` becomes her pseudo-tokens in any text node, and her adapter acts on the result.

A patched CLIP is a clone whose tokenizer and text encoder are shallow copies that share every weight with the original. A prompt that
mentions no identity takes the original's own code path.
"""
from __future__ import annotations

import copy
import math
from typing import Any, Callable, Mapping, Sequence

import torch
from torch import Tensor

from ...idea_engine.applied import CHUNK, AppliedIdentity, Place, adapt, inactive_sets
from ...idea_engine.clip_tokenizer import END
from ...idea_engine.errors import TriggerError
from ...idea_engine.tokens import trigger_pattern
from .mentions import MENTIONS, BoundedPrompt, Mention

_APPLIED = "_idea_applied"
_subclasses: dict[type, type] = {}


def with_identity(clip, applied: AppliedIdentity):
    """A clone of ``clip`` that also understands one more identity's trigger.

    Raises:
        TriggerError: the trigger is taken by another identity applied before.
    """
    before = applied_to(clip)
    if any(other.identity.trigger == applied.identity.trigger for other in before):
        raise TriggerError(
            f"Two identities answer to {applied.identity.trigger}, so the prompt could not tell them apart. "
            "Give one of them another word in the trigger field of its Apply ID Adapter node."
        )
    everyone = (*before, applied)
    clone = clip.clone()
    tokenizer = copy.copy(clone.tokenizer)
    for name, inner in vars(clone.tokenizer).items():
        if name in applied.identity.tokens and hasattr(inner, "_try_get_embedding"):
            setattr(tokenizer, name, _subclassed(inner, _IdentityTokenizer, everyone, encoder=name))
    clone.tokenizer = tokenizer
    clone.cond_stage_model = _subclassed(clone.cond_stage_model, _IdentityEncoder, everyone)
    return clone


def applied_to(clip) -> tuple[AppliedIdentity, ...]:
    """The identities that a CLIP understands, in the order in which they were applied."""
    return getattr(clip.cond_stage_model, _APPLIED, ())


def _subclassed(original, mixin: type, applied: tuple[AppliedIdentity, ...], **attributes):
    """A shallow copy of ``original`` that behaves like ``mixin`` first; weights and vocabulary are shared."""
    duplicate = copy.copy(original)
    if not isinstance(original, mixin):
        kind = type(original)
        if kind not in _subclasses:
            _subclasses[kind] = type(kind.__name__, (mixin, kind), {"__module__": kind.__module__})
        duplicate.__class__ = _subclasses[kind]
    for name, value in {_APPLIED: applied, **attributes}.items():
        object.__setattr__(duplicate, name if name == _APPLIED else f"_idea_{name}", value)
    return duplicate


class TokenChunks(list):
    """The host's chunks of (token, weight), which can be had again with some mentions left as plain words."""

    def __init__(self, chunks: Sequence, tokenize: Callable[[frozenset[str]], Sequence]):
        """Args: tokenize: mentions to leave out → chunks of the same text."""
        super().__init__(chunks)
        self._own, self._tokenize = len(self), tokenize

    def without(self, absent: frozenset[str]) -> list:
        """The same text with the mentions ``absent`` as plain words, and whatever a node has appended to these chunks since."""
        return [*self._tokenize(absent), *self[self._own:]]


class _IdentityTokenizer:
    """Mixed into a host ``SDTokenizer``: rewrites triggers to embedding names and serves the pseudo-tokens for them."""

    def tokenize_with_weights(self, text: str, *args: Any, **kwargs: Any):
        return self._tokenize(frozenset(), text, args, kwargs)

    def _tokenize(self, without: frozenset[str], text: str, args, kwargs):
        words = {a.identity.trigger: _word(a) for a in getattr(self, _APPLIED) if a.mention not in without}
        pattern = trigger_pattern(tuple(words)) if words else None
        plain = super().tokenize_with_weights
        if pattern is None or not pattern.search(text):
            return plain(text, *args, **kwargs)
        directory = self.embedding_directory
        try:
            # Without a folder for embeddings the host does not look for them at all.
            self.embedding_directory = directory if directory is not None else []
            chunks = plain(pattern.sub(lambda found: f" {self.embedding_identifier}{words[found[0]]} ", text), *args, **kwargs)
        finally:
            self.embedding_directory = directory
        return TokenChunks(chunks, lambda absent: self._tokenize(absent, text, args, kwargs))

    def _try_get_embedding(self, embedding_name: str):
        first, _, rest = embedding_name.strip().partition(" ")
        for applied in getattr(self, _APPLIED):
            if first == _word(applied):
                found = applied.faded.tokens[self._idea_encoder], rest.strip()
                # Since 0.28 the host answers with three values, the name between the two.
                return found if len(super()._try_get_embedding("_")) == 2 else (found[0], first, found[1])
        return super()._try_get_embedding(embedding_name)


def _word(applied: AppliedIdentity) -> str:
    """The embedding name of an identity: never a number, for the host would read it as a weight, and never a file."""
    return f"__idea_{applied.identity.trigger.encode().hex()}__"


class _IdentityEncoder:
    """Mixed into a host text encoder: applies the adapters and endings where identities are mentioned, and remembers where that was."""

    def encode_token_weights(self, token_weight_pairs):
        applied = getattr(self, _APPLIED)
        encode = super().encode_token_weights
        encoded = encode(token_weight_pairs)
        places = find_places(token_weight_pairs, applied)
        if not places:
            return encoded
        condition = _finished(encoded[0], places, token_weight_pairs, encode)
        mentioned = {place.applied.key for place in places}
        bounded = [a for a in applied if a.partial and a.key in mentioned]
        if bounded:
            variants = {}
            for absent in inactive_sets(bounded):
                pairs = _without(token_weight_pairs, absent)
                variants[absent] = _finished(encode(pairs)[0], find_places(pairs, applied), pairs, encode)
            condition = _remember_bounded(condition, variants)
        return (condition, *encoded[1:])


def _finished(condition: Tensor, places: Sequence[Place], pairs: Mapping[str, Sequence], encode: Callable) -> Tensor:
    """:func:`adapt`, and remember what the mentions look like afterwards, and in every stage."""
    staged = {}
    for applied in {id(place.applied): place.applied for place in places}.values():
        if applied.faded.stages:
            staged[id(applied)] = [adapt(variant, places)[0] for variant in encode_stages(condition, pairs, applied, encode)]
    condition = adapt(condition, places)
    for place in places:
        positions, variants = list(place.positions), staged.get(id(place.applied))
        rows = variants and torch.stack([variant[positions] for variant in variants]).unflatten(0, (-1, 2))
        MENTIONS.remember(place.applied.key, Mention(condition[0, positions], rows))
    return condition


def encode_stages(condition: Tensor, pairs: Mapping[str, Sequence], applied: AppliedIdentity, encode: Callable) -> list[Tensor]:
    """The prompt as the first stage's keys read it, as its values do, as the next stage's keys do, …: 2·S conditions (1, L, d).

    The host encodes them in one batch: to it they are the chunks of one very long prompt.

    Args:
        condition: the prompt with the plain tokens, before any adapter; stands for whatever reads exactly these.
    """
    plain = applied.faded.tokens
    every = [tokens for stage in applied.faded.stages for tokens in (stage.key, stage.value)]
    own = [tokens for tokens in every if not _same(tokens, plain)]
    encoded = iter(())
    if own:
        count = min(map(len, pairs.values()))  # of SDXL's two texts the host keeps as much as the shorter has
        joined = {
            letter: [chunk for tokens in own for chunk in _exchanged(chunks[:count], plain[f"clip_{letter}"], tokens[f"clip_{letter}"])]
            for letter, chunks in pairs.items()
        }
        encoded = iter(encode(joined)[0].unflatten(1, (len(own), -1)).unbind(1))
    return [condition if _same(tokens, plain) else next(encoded) for tokens in every]


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(rows, other[key]) for key, rows in one.items())


def _exchanged(chunks: Sequence[Sequence[tuple]], old: Tensor, new: Tensor) -> list[list[tuple]]:
    """Chunks of (token, weight, …) with the rows ``new`` (n, w) wherever ``old`` stand."""
    entries = [entry for chunk in chunks for entry in chunk]
    for start in _positions([entry[0] for entry in entries], old):
        entries[start : start + len(new)] = [(row, *entry[1:]) for row, entry in zip(new, entries[start:])]
    left = iter(entries)
    return [[next(left) for _ in chunk] for chunk in chunks]


def _without(pairs: Mapping[str, Sequence], absent: frozenset[str]) -> dict[str, Sequence]:
    """The host's token chunks with the mentions ``absent`` as plain words."""
    left = {key: chunks.without(absent) if isinstance(chunks, TokenChunks) else chunks for key, chunks in pairs.items()}
    # Where SDXL's two texts differ, spelling a trigger out may take one of them into another chunk; the host joins equal lengths only.
    count = min(map(len, left.values()))
    return {key: chunks[:count] for key, chunks in left.items()}


def _remember_bounded(condition: Tensor, variants: Mapping[frozenset[str], Tensor]) -> Tensor:
    """Remember a prompt beside its variants without the mentions that are out of their range; returns it at the common length.

    Attention does not change when a whole context is repeated, so prompts that differ in length meet at a common multiple.
    """
    common = math.lcm(condition.shape[1], *(variant.shape[1] for variant in variants.values()))
    repeats = common // condition.shape[1]
    MENTIONS.remember_bounded(BoundedPrompt(condition[0], repeats, {absent: _repeated(variant, common)[0] for absent, variant in variants.items()}))
    return _repeated(condition, common)


def _repeated(condition: Tensor, length: int) -> Tensor:
    return condition if condition.shape[1] == length else condition.repeat(1, length // condition.shape[1], 1)


def find_places(pairs, applied: Sequence[AppliedIdentity]) -> list[Place]:
    """Where each identity's pseudo-tokens stand in the host's token chunks.

    Of SDXL's two texts the first that mentions an identity counts. One person under two names has one place at each mention.

    Args:
        pairs: encoder letter (``l``, ``g``, ``h``) → chunks of (token, weight, …), a token being an id or a tensor.
    """
    places = []
    texts = list(pairs.values()) if isinstance(pairs, dict) else [pairs]
    for one in {one.key: one for one in applied}.values():
        for encoder, rows in one.faded.tokens.items():
            chunks = pairs.get(encoder.removeprefix("clip_"), []) if isinstance(pairs, dict) else pairs
            entries = [entry for chunk in chunks for entry in chunk]
            found = _positions([entry[0] for entry in entries], rows)
            if found:
                places += [Place(one, tuple(range(start, start + len(rows))), _ending(texts, start), float(entries[start][1])) for start in found]
                break
    return places


def _ending(texts: Sequence[Sequence], position: int) -> tuple[int, ...]:
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
