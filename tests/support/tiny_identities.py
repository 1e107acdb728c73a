"""Identities with every part set to random values, as if trained, for a diffusers backend."""
from __future__ import annotations

from dataclasses import replace

import torch


def random_identity(backend, trigger: str = "<anna>", recipe: str = "fast", seed: int = 0):
    """An Identity that fits ``backend``; by recipe with own keys and values and an ending (fast), changed projections (paper) or stages (sefi)."""
    from idea_engine.identity.identity import AdapterWeights, Identity, IdentityMetadata, StageTokens
    from idea_engine.identity.operations import rounded

    family, d, n = backend.family, backend.family.context_width, 2
    g = torch.Generator().manual_seed(seed)

    def rand(*shape, scale=1.0):
        return torch.randn(*shape, generator=g) * scale

    attention = {
        "in_proj_weight": rand(3 * d, d, scale=d**-0.5), "in_proj_bias": rand(3 * d, scale=0.1), "out_proj.weight": rand(d, d, scale=d**-0.5),
        "out_proj.bias": rand(d, scale=0.1),
    }
    made = Identity(
        family,
        tokens={key: rand(n, width) for key, width in family.encoders.items()},
        anchor={key: rand(n, width) for key, width in family.encoders.items()},
        adapter=AdapterWeights(rand(n, d), attention, 0.3, "tokens" if recipe == "fast" else "prompt"),
        metadata=IdentityMetadata(trigger, recipe, family.name),
    )
    widths = backend.block_widths
    if recipe == "fast":
        made = replace(made, key_offsets={i: rand(n, d) for i in range(len(widths))}, value_offsets={i: rand(n, d) for i in range(len(widths))})
        made = replace(made, ending=rand(d, scale=0.5))
    if recipe == "paper":
        made = replace(
            made, key_weights={i: rand(c, d, scale=0.05) for i, c in enumerate(widths)}, value_weights={i: rand(c, d, scale=0.05) for i, c in enumerate(widths)}
        )
    if recipe == "sefi":
        tokens = lambda: {key: rand(n, width) for key, width in family.encoders.items()}  # noqa: E731
        made = replace(made, adapter=None, stages=tuple(StageTokens(tokens(), tokens()) for _ in range(5)))
    return rounded(made)
