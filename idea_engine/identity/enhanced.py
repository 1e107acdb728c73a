"""An untrained person: the anchor of the names, and the face that conditions what is learned."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping

from torch import Tensor

from ..backends.family import ModelFamily
from .identity import Identity


@dataclass(frozen=True)
class IDAnchor:
    """The textual ID anchor: where an average name lands in the output space of the text encoder (METHODS §1.2).

    Attributes:
        rows: encoder key → (n, w) float32: outputs of the whole encoder at the name's positions.
        inputs: encoder key → (n, w) float32: the averaged input embeddings that were encoded.
        names_used: how many names entered the average at each of the n positions.
        start: encoder key → (n, w) float32, where a recipe's tokens begin if not at ``rows``; empty otherwise.
        spread: encoder key → (k, w) float32 with ``spreadᵀ·spread`` the covariance of the single names' rows; empty unless asked for.
    """

    rows: Mapping[str, Tensor]
    inputs: Mapping[str, Tensor]
    names_used: tuple[int, ...]
    start: Mapping[str, Tensor] = field(default_factory=dict)
    spread: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class EnhancedIdentity:
    """A face beside its textual anchor: all that training starts from, and usable as the untrained identity.

    Attributes:
        family: the model family whose text encoder made the anchor.
        face: (512,) float32 unit length, or None for methods that need no face recognizer.
        anchor: see :class:`IDAnchor`.
        seed: seeds the random weights of the enhancer, so that the same graph gives the same start.
        recognizer, licence: carried from the face embedding into the identity file.
        masks: face masks of the photographs, for losses that look at the face only.
        photographs: the :func:`~idea_engine.faces.photo.photo_key` of each mask's photograph.
        identity: the person at once, as an enhancer learned from many people reads the photographs; None without one. Recipes that know how
            begin there, and nothing needs to be trained to draw it.
    """

    family: ModelFamily
    face: Tensor | None
    anchor: IDAnchor
    seed: int = 0
    recognizer: str = ""
    licence: str = ""
    masks: tuple[Tensor, ...] = ()
    photographs: tuple[str, ...] = ()
    identity: "Identity | None" = None
