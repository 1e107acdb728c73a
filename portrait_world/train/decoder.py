"""Polishes the decoder while the encoder stands still: sharper pictures, and every latent and denoiser stays valid."""
from __future__ import annotations

import torch
from torch import Tensor

from ..networks.autoencoder import Autoencoder
from . import autoencoder
from .session import Schedule, Session

SCHEDULE = Schedule(steps=2000, rate=6e-4, warmup=50, average=0.998, weight_decay=1e-4, seed=9)


def train(schedule: Schedule = SCHEDULE) -> Autoencoder:
    """The finished autoencoder with a decoder trained further on its exact latents."""
    torch.manual_seed(schedule.seed)
    model = autoencoder.train()
    model.encoder.requires_grad_(False)
    session = Session("decoder", {"decoder": model.decoder}, schedule)
    crops = autoencoder.Crops(session.rng)

    def loss() -> tuple[Tensor, dict[str, float]]:
        pixels = crops.batch()
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                latents = model.compress(pixels)
            decoded = model.decoder(latents + torch.randn_like(latents) * autoencoder.NOISE * 0.5)
        return autoencoder.picture_loss(decoded.float() - pixels)

    session.run(loss)
    session.averaged()
    return model
