"""How every row of the benchmark is drawn: from the same start noise, in the same steps, with the same guidance."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .. import assets
from ..networks import noise
from ..networks.autoencoder import SD_SCALE, to_pictures

STEPS, GUIDANCE = 20, 3.0
_FIRST_SEED = 1000  # so that no training, which counts its seeds from 0, has seen this noise


@torch.no_grad()
def draw(
    predict: Callable[[Tensor, Tensor, Tensor], Tensor], condition: Tensor, empty: Tensor, seed: int, steps: int = STEPS,
) -> np.ndarray:
    """Pictures of text conditions.

    Args:
        predict: as for :func:`portrait_world.networks.noise.sample`.
        condition: (B, L, d) text condition. empty: (1, L, d), that of the empty prompt.
        seed: of the start noise.

    Returns:
        (B, 128, 128, 3) uint8.
    """
    start = torch.randn(len(condition), 4, 16, 16, generator=torch.Generator().manual_seed(_FIRST_SEED + seed))
    latents = noise.sample(predict, condition, empty, start, steps=steps, guidance=GUIDANCE)
    return to_pictures(assets.autoencoder().decode(latents / SD_SCALE))
