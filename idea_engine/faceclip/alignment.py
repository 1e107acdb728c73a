"""The alignment loss that a joint encoder learns from: its rows must tell the face, the text and the picture (arXiv 2504.14202, §3)."""
from __future__ import annotations

from typing import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def pairwise_sigmoid(ours: Tensor, theirs: Tensor, scale: Tensor, bias: Tensor, same: Tensor | None = None) -> Tensor:
    """Which of the others is mine? Every pair of the batch is a question of yes or no (SigLIP's loss, arXiv 2303.15343).

    Args:
        ours, theirs: (B, w), any length.
        scale: scalar, the logarithm of the factor of the cosine. bias: scalar; about -10 at the start, since most pairs do not match.
        same: (B, B) bool, the pairs that match; None = each with its own.

    Returns:
        (B,) the sum over a row's pairs.
    """
    cosine = F.normalize(ours, dim=-1) @ F.normalize(theirs, dim=-1).T
    same = torch.eye(len(ours), dtype=torch.bool, device=ours.device) if same is None else same
    logits = cosine * scale.exp() + bias
    return -F.logsigmoid(torch.where(same, logits, -logits)).sum(1)


class Alignment(nn.Module):
    """Reads frozen embedding spaces out of the fused rows; one linear readout of the rows' mean per space."""

    def __init__(self, width: int, spaces: Mapping[str, int]):
        """``width``: d of the fused rows. ``spaces``: name (face, text, image …) → width of its embeddings."""
        super().__init__()
        self.readouts = nn.ModuleDict({name: nn.Linear(width, size) for name, size in spaces.items()})

    def forward(self, fused: Tensor, targets: Mapping[str, Tensor], scale: Tensor, bias: Tensor,
                same: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """One loss per sample and space.

        Args:
            fused: (B, L, d). targets: space → (B, w), not trained.
            scale, bias: the encoder's ``logit_scale`` and ``logit_bias``.
            same: space → (B, B) bool where more pairs match than each with its own (two pictures of one person).

        Returns:
            space → (B,).
        """
        mean = fused.mean(1)
        same = same or {}
        return {
            name: pairwise_sigmoid(self.readouts[name](mean), target.detach(), scale, bias, same.get(name)) for name, target in targets.items()
        }
