"""An identity moved to another base model: a short training that starts where the old one ended."""
from __future__ import annotations

from dataclasses import replace
from typing import Sequence

import torch
from torch import Tensor

from ..errors import FamilyMismatchError
from ..identity.enhanced import EnhancedIdentity
from ..identity.identity import Identity
from ..methods import id_ea
from ..methods.module import IdentityModule
from ..methods.recipe import Recipe

STEPS = 25


def nearest_start(identity: Identity, enhanced: EnhancedIdentity) -> dict[str, Tensor]:
    """Where the person's pseudo-tokens most likely lie on the new text encoder.

    What was learned is the step away from where the recipe starts, an average name or a plain word. Where both models have the same text encoder (SD1's clip_l is one of SDXL's two), that
    step is taken from the new model's own average; the other encoders start at the average.

    Returns:
        encoder key of the new family → (n, w) float32.

    Raises:
        FamilyMismatchError: the numbers of pseudo-tokens differ.
    """
    start = {}
    for key, average in (enhanced.anchor.start or enhanced.anchor.rows).items():
        old = identity.tokens.get(key)
        if old is None or old.shape[1] != average.shape[1]:
            start[key] = average.float().clone()
            continue
        if old.shape[0] != average.shape[0]:
            raise FamilyMismatchError(
                f"The identity {identity.trigger} has {old.shape[0]} pseudo-tokens, but ID Enhancer made a start with {average.shape[0]}. "
                "Train the person again on this model with the Train node."
            )
        step = old.float() - identity.anchor[key].float() if key in identity.anchor else None
        # An imported embedding knows no average: its rows are taken as they are.
        start[key] = old.float().clone() if step is None else average.float() + step
    return start


def build_from(identity: Identity):
    """A ``build`` for :func:`idea_engine.training.loop.train` whose pseudo-tokens begin at :func:`nearest_start`, and whose ending, keys and values
    begin as the old ones where the new model's text condition is of the same kind and its blocks are as many."""

    def build(enhanced: EnhancedIdentity, recipe: Recipe, blocks: Sequence[int]) -> IdentityModule:
        module = id_ea.build(enhanced, recipe, blocks)
        start = nearest_start(identity, enhanced)
        with torch.no_grad():
            for key, rows in module.tokens.items():
                rows.copy_(start[key])
            if identity.family == enhanced.family:
                if identity.ending is not None:
                    module.begin_ending(identity.ending)
                if identity.key_offsets:
                    module.key_value.begin(identity.key_offsets, identity.value_offsets)
        return module

    return build


def carried_over(refitted: Identity, identity: Identity) -> Identity:
    """The refitted identity with the old one's notes: consent, thumbnail, and from where it came."""
    old = identity.metadata
    config = {**refitted.metadata.config, "refitted_from": {"family": identity.family.name, "base_hash": old.base_hash, "method": old.method}}
    return replace(
        refitted,
        metadata=replace(
            refitted.metadata, config=config, consent=old.consent, thumbnail=old.thumbnail,
            recognizer=refitted.metadata.recognizer or old.recognizer, licence=refitted.metadata.licence or old.licence,
        ),
    )
