"""What can be done with a finished identity: start one untrained, round it to the file's precision, fade it, name it by content."""
from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Callable, Mapping

import torch
from torch import Tensor

from .enhanced import EnhancedIdentity
from .identity import AdapterWeights, Identity, IdentityMetadata, StageTokens

DEFAULT_TRIGGER = "<id>"


def untrained(enhanced: EnhancedIdentity, trigger: str = DEFAULT_TRIGGER) -> Identity:
    """The identity before any training: the one that an enhancer learned from many people reads in the photographs, if there was one; else its
    pseudo-tokens are the anchor, and everything else is an exact no-op."""
    if enhanced.identity is not None:
        return enhanced.identity.with_trigger(trigger)
    metadata = IdentityMetadata(
        trigger=trigger, method="untrained", family=enhanced.family.name, recognizer=enhanced.recognizer, licence=enhanced.licence
    )
    return rounded(
        Identity(family=enhanced.family, tokens=enhanced.anchor.rows, anchor=enhanced.anchor.rows, metadata=metadata, face=enhanced.face)
    )


def as_identity(person: Identity | EnhancedIdentity) -> Identity:
    """An identity as it is; what comes from the ID Enhancer as :func:`untrained`."""
    return untrained(person) if isinstance(person, EnhancedIdentity) else person


def map_tensors(identity: Identity, change: Callable[[str, Tensor], Tensor]) -> Identity:
    """A copy with ``change(name, tensor)`` in place of every tensor; the names are those of the file."""

    def mapped(prefix: str, parts: Mapping) -> dict:
        return {key: change(f"{prefix}{key}", tensor) for key, tensor in parts.items()}

    adapter = identity.adapter
    if adapter is not None:
        adapter = AdapterWeights(
            features=change("adapter.features", adapter.features),
            attention=mapped("adapter.attention.", adapter.attention),
            gate=adapter.gate,
            scope=adapter.scope,
        )
    return replace(
        identity,
        tokens=mapped("", identity.tokens),
        anchor=mapped("anchor.", identity.anchor),
        adapter=adapter,
        ending=None if identity.ending is None else change("ending", identity.ending),
        key_offsets={i: change(f"kv.{i}.key", t) for i, t in identity.key_offsets.items()},
        value_offsets={i: change(f"kv.{i}.value", t) for i, t in identity.value_offsets.items()},
        key_weights={i: change(f"kv.{i}.key_weight", t) for i, t in identity.key_weights.items()},
        value_weights={i: change(f"kv.{i}.value_weight", t) for i, t in identity.value_weights.items()},
        face=None if identity.face is None else change("face.embedding", identity.face),
        stages=tuple(
            StageTokens(mapped(f"stages.{s}.k.", stage.key), mapped(f"stages.{s}.v.", stage.value)) for s, stage in enumerate(identity.stages)
        ),
    )


def named_tensors(identity: Identity) -> dict[str, Tensor]:
    """Every tensor under its name in the file."""
    found: dict[str, Tensor] = {}

    def collect(name: str, tensor: Tensor) -> Tensor:
        found[name] = tensor
        return tensor

    map_tensors(identity, collect)
    return found


def rounded(identity: Identity) -> Identity:
    """The precision of the file: pseudo-tokens, anchor, ending and face in float32, the large parts in float16; detached, on the CPU.

    Rounding happens once, when training ends, so that memory and file hold the same person bit for bit.
    """

    def change(name: str, tensor: Tensor) -> Tensor:
        small = name.startswith(("clip_", "anchor.", "ending", "face.", "stages."))
        return tensor.detach().to("cpu", torch.float32 if small else torch.float16).contiguous().clone()

    with torch.inference_mode(False):
        return map_tensors(identity, change)


def faded(identity: Identity, strength: float) -> Identity:
    """The identity at another strength: 1 is unchanged, towards 0 the tokens (of every stage) fade to the anchor (an average person), above 1
    exaggerates.

    Adapter, ending, keys and values scale with ``strength``. Without an anchor (imported files) the tokens stay as they are.
    """
    if strength == 1.0:
        return identity

    def towards_anchor(tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {key: torch.lerp(identity.anchor[key], rows, strength) if key in identity.anchor else rows for key, rows in tokens.items()}

    adapter = identity.adapter and replace(identity.adapter, gate=identity.adapter.gate * strength)
    ending = None if identity.ending is None else identity.ending * strength
    scaled = {
        name: {i: tensor.float() * strength for i, tensor in getattr(identity, name).items()}
        for name in ("key_offsets", "value_offsets", "key_weights", "value_weights")
    }
    stages = tuple(StageTokens(towards_anchor(stage.key), towards_anchor(stage.value)) for stage in identity.stages)
    return replace(identity, tokens=towards_anchor(identity.tokens), adapter=adapter, ending=ending, stages=stages, **scaled)


def content_hash(identity: Identity) -> str:
    """Hexadecimal digest of everything that shapes pictures; the trigger and the notes do not."""
    digest = hashlib.sha256(repr(identity.family).encode())
    if identity.adapter is not None:
        digest.update(repr((identity.adapter.gate, identity.adapter.scope)).encode())
    for name, tensor in sorted(named_tensors(replace(identity, face=None)).items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def faded_parts(identity: Identity, tokens: float = 1.0, adapter: float = 1.0, key_value: float = 1.0) -> Identity:
    """The identity with each part at its own strength; see :func:`~idea_engine.identity.operations.faded` for what a strength means.

    The ending goes with the adapter: both act on the text condition. All three at 1 is the identity itself, and
    three equal ones are what :func:`~idea_engine.identity.operations.faded` gives.
    """
    own, on_text, keys = faded(identity, tokens), faded(identity, adapter), faded(identity, key_value)
    return own if tokens == adapter == key_value else replace(
        own,
        adapter=on_text.adapter, ending=on_text.ending,
        key_offsets=keys.key_offsets, value_offsets=keys.value_offsets, key_weights=keys.key_weights, value_weights=keys.value_weights,
    )
