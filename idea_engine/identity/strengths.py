"""An identity whose parts are applied at strengths of their own."""
from __future__ import annotations

from dataclasses import replace

from .operations import faded
from .identity import Identity


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
