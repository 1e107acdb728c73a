"""Trains the autoencoder on random 64-pixel crops: faces first, everything else after."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..networks.autoencoder import Autoencoder, to_tensor
from .dataset import pictures
from .session import Schedule, Session

SCHEDULE = Schedule(steps=6500, rate=2e-3, warmup=60, average=0.998, weight_decay=1e-4)
BATCH, CROP = 16, 64
NOISE = 0.05  # on unit-variance latents: what the denoiser leaves behind must not show


class Crops:
    """Random crops of the training pictures: half of them from the face, where detail matters."""

    def __init__(self, rng: np.random.Generator):
        self._sets = [pictures("unnamed"), pictures("named")]
        self._rng = rng

    def batch(self) -> Tensor:
        """(16, 3, 64, 64) in -1..1."""
        rng = self._rng
        out = np.empty((BATCH, CROP, CROP, 3), np.uint8)
        for row in range(BATCH):
            source = self._sets[row % 2]
            if rng.uniform() < 0.5:
                y, x = int(rng.integers(28, 52)), int(rng.integers(16, 49))
            else:
                y, x = rng.integers(0, 65, 2)
            out[row] = source[rng.integers(len(source)), y:y + CROP, x:x + CROP]
        return to_tensor(out)


def train(schedule: Schedule = SCHEDULE) -> Autoencoder:
    """Train (or go on training) the autoencoder; returns it with averaged weights and measured latents."""
    torch.manual_seed(schedule.seed)
    model = Autoencoder().to(memory_format=torch.channels_last)
    session = Session("autoencoder", {"model": model}, schedule)
    crops = Crops(session.rng)

    def loss() -> tuple[Tensor, dict[str, float]]:
        pixels = crops.batch()
        with torch.autocast("cpu", torch.bfloat16):
            latents = model.compress(pixels)
            decoded = model.decoder(latents + torch.randn_like(latents) * NOISE)
        decoded, latents = decoded.float(), latents.float()
        value, figures = picture_loss(decoded - pixels)
        # about unit variance, so that NOISE means what it says and no channel saturates
        spread = latents.transpose(0, 1).flatten(1)
        shape = (spread.mean(1) ** 2 + (spread.std(1) - 1) ** 2).mean()
        return value + 0.01 * shape, {**figures, "latent_std": float(spread.detach().std())}

    session.run(loss)
    session.averaged()
    _measure_latents(model)
    return model


def picture_loss(error: Tensor) -> tuple[Tensor, dict[str, float]]:
    """(B, 3, H, W) difference of pictures → absolute error, error of the edges, and a little squared error."""
    l1 = error.abs().mean()
    edges = error.diff(dim=3).abs().mean() + error.diff(dim=2).abs().mean()
    return l1 + 0.5 * edges + 0.5 * (error ** 2).mean(), {"l1": float(l1.detach())}


@torch.no_grad()
def _measure_latents(model: Autoencoder, count: int = 2000) -> None:
    """Set the mean and standard deviation that ``encode`` and ``decode`` normalise with."""
    store = pictures("unnamed")
    chosen = np.random.default_rng(0).choice(len(store), count, replace=False)
    raw = torch.cat([model.compress(to_tensor(store[np.sort(part)])) for part in np.array_split(chosen, count // 100)])
    model.latent_mean.copy_(raw.mean((0, 2, 3)))
    model.latent_std.copy_(raw.std((0, 2, 3)))
