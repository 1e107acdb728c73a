"""Identities in the CLIP text-encoding graph: ``<anna>`` becomes her pseudo-tokens in any text node, and her adapter acts on the result.

A patched CLIP is a clone whose tokenizer and text encoder are shallow copies that share every weight with the original. A prompt that
mentions no identity takes the original's own code path.
"""
from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Sequence

import torch
from torch import Tensor

from ...idea_engine.adapter import adapter_residual
from ...idea_engine.errors import TriggerError
from ...idea_engine.tokens import trigger_pattern
from .applied import AppliedIdentity, inactive_sets
from .mentions import MENTIONS, BoundedPrompt

CHUNK = 77  # positions of one chunk of a CLIP text encoder
_APPLIED = "_idea_applied"
_subclasses: dict[type, type] = {}


def with_identity(clip, applied: AppliedIdentity):
    """A clone of ``clip`` that also understands one more identity's trigger.

    Raises:
        TriggerError: the trigger is taken by another identity applied before.
    """
    before: tuple[AppliedIdentity, ...] = getattr(clip.cond_stage_model, _APPLIED, ())
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
    """The host's chunks of (token, weight) with a way to tokenize the same text with some identities left as plain words."""

    def __init__(self, chunks, without):
        super().__init__(chunks)
        self.without = without


class _IdentityTokenizer:
    """Mixed into a host ``SDTokenizer``: rewrites triggers to embedding names and serves the pseudo-tokens for them."""

    def tokenize_with_weights(self, text: str, *args: Any, **kwargs: Any):
        return self._tokenize(frozenset(), text, args, kwargs)

    def _tokenize(self, without: frozenset[str], text: str, args, kwargs):
        words = {a.identity.trigger: _word(a) for a in getattr(self, _APPLIED) if a.key not in without}
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
                return applied.faded.tokens[self._idea_encoder], rest.strip()
        return super()._try_get_embedding(embedding_name)


def _word(applied: AppliedIdentity) -> str:
    """The embedding name of an identity: never a number, for the host would read it as a weight, and never a file."""
    return f"__idea_{applied.identity.trigger.encode().hex()}__"


@dataclass(frozen=True)
class _Place:
    """One mention: who, and the positions of the n pseudo-tokens in the text condition."""

    applied: AppliedIdentity
    positions: tuple[int, ...]


class _IdentityEncoder:
    """Mixed into a host text encoder: applies the adapters where identities are mentioned, and remembers where that was."""

    def encode_token_weights(self, token_weight_pairs):
        encode = super().encode_token_weights
        encoded = encode(token_weight_pairs)
        applied = getattr(self, _APPLIED)
        places = find_places(token_weight_pairs, applied)
        if not places:
            return encoded
        condition = adapt(encoded[0], places)
        bounded = [a for a in applied if a.bounded and any(place.applied is a for place in places)]
        if bounded:
            condition = _remember_bounded(condition, bounded, token_weight_pairs, lambda pairs: _without_remembering(self, encode, pairs, applied))
        for place in places:
            rows = condition[0, list(place.positions)]
            MENTIONS.remember(place.applied.key, rows)
        return (condition, *encoded[1:])


def _without_remembering(encoder, encode, pairs, applied) -> Tensor:
    condition = encode(pairs)[0]
    places = find_places(pairs, applied)
    return adapt(condition, places) if places else condition


def _remember_bounded(condition: Tensor, bounded: list[AppliedIdentity], pairs, encode) -> Tensor:
    """Encode the prompt again for every set of identities that is out of its range together; returns ``condition`` at the common length."""
    variants = {}
    for absent in inactive_sets(bounded):
        variants[absent] = encode({key: chunks.without(absent) if isinstance(chunks, TokenChunks) else chunks for key, chunks in pairs.items()})
    # Attention does not change when a whole context is repeated, so prompts that differ in length meet at a common multiple.
    length = torch.tensor([condition.shape[1], *(variant.shape[1] for variant in variants.values())])
    common = int(torch.lcm(length[0], length.max())) if len(length) else condition.shape[1]
    repeated = {absent: _repeated(variant, common)[0] for absent, variant in variants.items()}
    condition = _repeated(condition, common)
    MENTIONS.remember_bounded(BoundedPrompt(condition[0], repeated))
    return condition


def _repeated(condition: Tensor, length: int) -> Tensor:
    return condition if condition.shape[1] == length else condition.repeat(1, length // condition.shape[1], 1)


def find_places(pairs, applied: Sequence[AppliedIdentity]) -> list[_Place]:
    """Where each identity's pseudo-tokens stand in the host's token chunks.

    Args:
        pairs: encoder letter (``l``, ``g``, ``h``) → chunks of (token, weight, …), a token being an id or a tensor.
    """
    places = []
    for one in applied:
        encoder = next(iter(one.faded.tokens))
        rows = one.faded.tokens[encoder]
        chunks = pairs.get(encoder.removeprefix("clip_"), []) if isinstance(pairs, dict) else pairs
        flat = [entry[0] for chunk in chunks for entry in chunk]
        position = 0
        while position <= len(flat) - len(rows):
            if all(torch.is_tensor(token) and token.shape == row.shape and torch.equal(token, row) for token, row in zip(flat[position:], rows)):
                places.append(_Place(one, tuple(range(position, position + len(rows)))))
                position += len(rows)
            else:
                position += 1
    return places


def adapt(condition: Tensor, places: Sequence[_Place]) -> Tensor:
    """The text condition (1, L, d) with every mentioned identity's adapter applied to the chunk in which it is mentioned.

    All residuals are computed from the plain condition, so the order in which identities were applied does not matter.
    """
    result = condition
    for applied in {id(place.applied): place.applied for place in places}.values():
        weights = applied.faded.adapter
        if weights is None or weights.gate == 0.0:
            continue
        own = [p for place in places if place.applied is applied for p in place.positions]
        change = torch.zeros_like(condition)
        for start in sorted({position // CHUNK * CHUNK for position in own}):
            part = slice(start, min(start + CHUNK, condition.shape[1]))
            change[:, part] = adapter_residual(weights, condition[:, part]).to(condition)
        if weights.scope == "tokens":
            keep = torch.zeros(condition.shape[1], 1, dtype=torch.bool, device=condition.device)
            keep[own] = True
            change = change * keep
        result = result + change
    return result
