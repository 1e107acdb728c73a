"""What training minimises. Every loss returns one value per sample or per identity; the loop alone weights and sums them."""
from __future__ import annotations

import torch
from torch import Tensor


def noise_loss(output: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean squared error of the network's prediction: (B, C, h, w) twice → (B,).

    Args:
        weights: (B, h, w) of the latent's cells, mean 1 per picture; None weighs all alike.
    """
    squares = (output.float() - target.float()).square()
    if weights is not None:
        squares = squares * weights[:, None]
    return squares.flatten(1).mean(1)


def face_weights(masks: Tensor, share: float) -> Tensor:
    """Face masks (B, h, w) in 0..1 → weights of mean 1: ``share`` of the loss comes from the face alone, the rest from the whole picture.

    A picture without a face is weighted evenly.
    """
    means = masks.mean((1, 2), keepdim=True)
    faces = torch.where(means > 0, masks / means.clamp_min(1e-6), torch.ones_like(masks))
    return 1 - share + share * faces


def min_snr_weights(snr: Tensor, velocity: bool, ceiling: float) -> Tensor:
    """(B,) signal-to-noise ratios → (B,) weights (arXiv 2303.09556): the error of the picture, not of the noise, counts, up to ``ceiling``.

    Args:
        velocity: whether the network predicts v rather than ε.
    """
    return snr.clamp(max=ceiling) / (snr + 1 if velocity else snr)
