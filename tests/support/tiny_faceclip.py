"""A real FaceCLIP encoder of a few hundred thousand weights, random but alive: every part of it changes the result."""
from __future__ import annotations

from dataclasses import replace

import torch

SIZES = dict(text_layers=2, text_heads=2, text_inner=96, patch=28, face_width=32, face_layers=2, face_heads=2, face_inner=64,
             face_classes=24, fuser_layers=2, fuser_heads=4, fuser_inner=96)


def tiny_configs(widths=(32, 64)):
    """Encoder key → config: like the published pair, a quick_gelu one and a gelu one."""
    from idea_engine.faceclip.config import PUBLISHED

    return {key: replace(config, text_width=width, **SIZES) for (key, config), width in zip(PUBLISHED.items(), widths)}


def tiny_encoder(configs=None, seed=0):
    """A FaceCLIPEncoder in eval mode with random weights of working size."""
    from idea_engine.faceclip.encoder import FaceCLIPEncoder
    torch.manual_seed(seed)
    made = FaceCLIPEncoder(configs or tiny_configs())
    enliven(made)
    return made.train(False).requires_grad_(False)


def telling_configs():
    """Reduced sizes whose heads are those that a file without a description is read with."""
    return {key: replace(config, text_width=width, text_heads=width // 64, face_heads=8, fuser_heads=8, text_layers=3, fuser_layers=1, vocabulary=49500)
            for (key, config), width in zip(tiny_configs().items(), (64, 128))}


def tiny_published(configs=None, seed=3):
    """What the published checkpoint holds, reduced: its names, and shapes that tell the sizes."""
    return {f"model.{key}": value for key, value in tiny_encoder(configs or telling_configs(), seed).state_dict().items()}


@torch.no_grad()
def enliven(module: torch.nn.Module) -> None:
    """Random norms, biases, gains and statistics, so that no comparison passes because something is 0 or 1."""
    for name, value in module.state_dict().items():
        if not value.is_floating_point():
            continue
        if value.ndim <= 1:
            noise = torch.randn(value.shape) * 0.3
            value.copy_(noise if name.endswith("bias") and "sampling" not in name else (value + noise).abs() + 0.1)
        elif name.endswith(("sampling_offsets.weight", "attention_weights.weight")):
            value.normal_(std=0.2)


def faces(count, seed=1):
    """(count, 3, 112, 112) in 0..1."""
    return torch.rand(count, 3, 112, 112, generator=torch.Generator().manual_seed(seed))
