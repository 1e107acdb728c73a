"""Likeness between portraits, as the judge sees it."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .. import assets
from ..networks.autoencoder import to_tensor
from ..world.portrayal import ATTRIBUTES, Shot


@torch.no_grad()
def judge_embeddings(pictures: np.ndarray, batch: int = 64) -> Tensor:
    """(B, 128, 128, 3) uint8 → (B, 512) unit-length embeddings by the judge."""
    model = assets.judge()
    parts = [model(to_tensor(pictures[start:start + batch])) for start in range(0, len(pictures), batch)]
    return torch.nn.functional.normalize(torch.cat(parts), dim=1)


@torch.no_grad()
def read_attributes(pictures: np.ndarray, batch: int = 64) -> Tensor:
    """(B, 128, 128, 3) uint8 → (B, 6) int64: the attribute judge's choice, in the order of shot.ATTRIBUTES."""
    model = assets.attribute_judge()
    rows = []
    for start in range(0, len(pictures), batch):
        rows.append(torch.stack([logits.argmax(1) for logits in model(to_tensor(pictures[start:start + batch]))], 1))
    return torch.cat(rows)


def shown_as_said(pictures: np.ndarray, shots: tuple[Shot, ...]) -> dict[str, float]:
    """(B, 128, 128, 3) uint8 drawn from B shots → attribute → share of pictures that show it as said; colour where there is one."""
    hits = (read_attributes(pictures) == torch.tensor([shot.labels() for shot in shots])).float()
    in_colour = torch.tensor([shot.style in ("photo", "painting") for shot in shots])
    return {field: float(hits[in_colour, k].mean() if field == "colour" else hits[:, k].mean()) for k, field in enumerate(ATTRIBUTES)}


def share_shown(pictures: np.ndarray, shots: tuple[Shot, ...]) -> float:
    """The mean of :func:`shown_as_said` over the attributes."""
    return float(np.mean(list(shown_as_said(pictures, shots).values())))


def area_under_curve(same: np.ndarray, different: np.ndarray) -> float:
    """The chance that a pair of one person scores above a pair of two: 1-d arrays of cosines → 0..1."""
    ranks = np.concatenate([same, different]).argsort().argsort()
    return float((ranks[:len(same)].sum() - len(same) * (len(same) - 1) / 2) / len(same) / len(different))
