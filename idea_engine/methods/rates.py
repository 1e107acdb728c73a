"""How far a training step goes with our own recipes: by the size of what moves, by the width of what reads it, by the batch. docs/rates.md derives it."""
from __future__ import annotations

import math

import torch
from torch import Tensor

MEASURED_WIDTH = 128  # of the Portrait World's text encoder and text condition, on which every rate of ours was measured
# How far published textual inversion takes a row, in lengths of an ordinary word's row: the pseudo-tokens that CrossInit publishes for SD 2.1 have
# norms of 32.9 to 34.6 where the encoder's own rows have 0.4.
REACH = 84.0


def width_factor(width: int) -> float:
    """What a rate measured at :data:`MEASURED_WIDTH` is multiplied by where a row of ``width`` numbers is read.

    Adam's steps are nearly those of the gradient's signs: w numbers that each move by the same share of their size change what a projection reads
    by √w of that share, for the projection's own weights are as 1/√w.
    """
    return math.sqrt(MEASURED_WIDTH / width)


def step_rate(lr: float, batch: int, measured_batch: int) -> float:
    """The rate of a step from the rate per picture.

    Args:
        measured_batch: the batch at which the recipe was measured; 0: the rate grows with the batch, as the released script has it (METHODS §1.6).
            Otherwise a step goes as far with any batch: with more pictures it is steadier, which is what they are for. Longer steps, in proportion or
            by the square root, cost the prompt and gave no likeness (docs/rates.md).
    """
    return lr * (measured_batch or batch)


def root_mean_square(rows: Tensor) -> float:
    """The size of rows."""
    return float(rows.float().square().mean().sqrt())


@torch.no_grad()
def hold(rows: Tensor, start: Tensor) -> None:
    """Bring rows (n, w) that went further from ``start`` than :data:`REACH` of its length back to there; the others stay bit for bit."""
    change = rows - start
    far = change.norm(dim=1, keepdim=True) / (REACH * start.norm(dim=1, keepdim=True)).clamp_min(1e-12)
    rows.copy_(torch.where(far > 1.0, start + change / far.clamp_min(1.0), rows))
