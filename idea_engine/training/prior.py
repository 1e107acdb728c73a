"""Keeps prompts without the person where they were, for recipes that change projections everywhere."""
from __future__ import annotations

from dataclasses import replace
from typing import Sequence

import torch
from torch import Tensor

from ..backends.base import CrossAttentionEdit, DiffusionBackend
from ..backends.templates import prompt_inputs
from ..methods.module import IdentityModule
from ..prompts.trigger import PLACEHOLDER
from .losses import noise_loss

_SOMEBODY = "somebody"  # stands where the person's word would


class Prior:
    """Mean squared change of the frozen model's own prediction for a training prompt about somebody else."""

    def __init__(self, backend: DiffusionBackend, templates: Sequence[str]):
        self._backend = backend
        self._prompts = [backend.tokenize(template.replace(PLACEHOLDER, _SOMEBODY), "", 0) for template in templates]

    def __call__(self, module: IdentityModule, template: int, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Latents and noise (B, C, h, w), timesteps (B,) → scalar. ``template``: which of the prompts."""
        backend, prompt = self._backend, self._prompts[template]
        with torch.no_grad():
            plain = backend.encode_text(prompt_inputs(backend, [prompt], {}), [prompt.end]).rows([0] * len(latents))
            before = backend.predict(latents, noise, timesteps, plain, CrossAttentionEdit()).output
        return noise_loss(backend.predict(latents, noise, timesteps, plain, elsewhere(module, latents)).output, before).mean()


def elsewhere(module: IdentityModule, latents: Tensor) -> CrossAttentionEdit:
    """The edit for latents (B, C, h, w) whose prompt does not mention the person: only what changes the projections themselves can reach it."""
    edit = module.edit(torch.zeros(len(latents), 0, dtype=torch.long, device=latents.device))
    return replace(edit, positions=None, key_offsets=None, value_offsets=None)
