"""Trains the autoencoder on random 64-pixel crops: faces first, everything else after."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..autoencoder import Autoencoder, to_tensor
from ..dataset import pictures
from .session import Schedule, Session

SCHEDULE = Schedule(steps=9000, rate=1.2e-3, warmup=150, average=0.995, weight_decay=1e-4)
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


def train(schedule: Schedule = SCHEDULE) -> Session:
    """Train (or go on training) the autoencoder; the session's module ends with averaged weights."""
    torch.manual_seed(schedule.seed)
    model = Autoencoder().to(memory_format=torch.channels_last)
    _calm_start(model)
    session = Session("autoencoder", {"model": model}, schedule)
    crops = Crops(session.rng)

    def loss() -> tuple[Tensor, dict[str, float]]:
        pixels = crops.batch()
        with torch.autocast("cpu", torch.bfloat16):
            latents = model.encode(pixels)
            decoded = model.decode(latents + torch.randn_like(latents) * NOISE)
        decoded, latents = decoded.float(), latents.float()
        error = decoded - pixels
        l1 = error.abs().mean()
        edges = error.diff(dim=3).abs().mean() + error.diff(dim=2).abs().mean()
        # unit variance and zero mean per channel: the space the denoiser and its noise schedule expect
        spread = latents.transpose(0, 1).flatten(1)
        shape = (spread.mean(1) ** 2 + (spread.std(1) - 1) ** 2).mean()
        total = l1 + 0.5 * edges + 0.5 * (error ** 2).mean() + 0.02 * shape
        return total, {"l1": float(l1.detach()), "latent_std": float(spread.detach().std())}

    session.run(loss)
    session.averaged()
    return session


def _calm_start(model: nn.Module) -> None:
    """Residual branches start at a fifth, so that thirty un-normalised layers do not explode."""
    from ..autoencoder import Block

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    module.bias.zero_()
            if isinstance(module, Block):
                module.conv[-1].weight.mul_(0.2)
