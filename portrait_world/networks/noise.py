"""Stable Diffusion's noise schedule, and a plain DDIM sampler for training-time pictures and the gates."""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

STEPS = 1000
# 'scaled linear', .00085 to .012: SD1.x's published schedule, the one hosts assume
_BETAS = torch.linspace(0.00085 ** 0.5, 0.012 ** 0.5, STEPS, dtype=torch.float64) ** 2
KEPT = torch.cumprod(1 - _BETAS, 0).float()  # (1000,) the signal's share of the variance


def add_noise(latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """(B, 4, h, w) unit-variance latents, noise, (B,) timesteps → noisy latents."""
    kept = KEPT[timesteps].view(-1, 1, 1, 1)
    return kept.sqrt() * latents + (1 - kept).sqrt() * noise


def loss_weights(timesteps: Tensor, ceiling: float = 5.0) -> Tensor:
    """(B,) → (B,): min-SNR-5 weights for noise prediction (arXiv 2303.09556): fine noise does not drown what faces are."""
    ratio = KEPT[timesteps] / (1 - KEPT[timesteps])
    return ratio.clamp(max=ceiling) / ratio


@torch.no_grad()
def sample(predict: Callable[[Tensor, Tensor, Tensor], Tensor], condition: Tensor, empty: Tensor, noise: Tensor,
           steps: int = 20, guidance: float = 3.0) -> Tensor:
    """DDIM with classifier-free guidance.

    Args:
        predict: (2B, 4, h, w) latents, timestep, (2B, L, d) condition → predicted noise.
        condition: (B, L, d) text condition. empty: (1, L, d), that of the empty prompt.
        noise: (B, 4, h, w) start.
    Returns:
        (B, 4, h, w) unit-variance latents.
    """
    latents, count = noise, len(noise)
    stride = STEPS // steps
    both = torch.cat([empty.expand(count, -1, -1), condition])
    for timestep in range(STEPS - 1, -1, -stride):
        without, with_text = predict(torch.cat([latents, latents]), torch.tensor(timestep), both).chunk(2)
        predicted = without + guidance * (with_text - without)
        kept = KEPT[timestep]
        kept_next = KEPT[timestep - stride] if timestep >= stride else torch.tensor(1.0)
        clean = ((latents - (1 - kept).sqrt() * predicted) / kept.sqrt()).clamp(-4.5, 4.5)
        predicted = (latents - kept.sqrt() * clean) / (1 - kept).sqrt()
        latents = kept_next.sqrt() * clean + (1 - kept_next).sqrt() * predicted
    return latents
