"""A MASK per identity: which people are present where, on the token grid of each cross-attention block."""
from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Sequence

import torch
from torch import Tensor, nn

from ...idea_engine.errors import BadImageError


def check_mask(mask: Tensor, node: str) -> Tensor:
    """A MASK (M, H, W) or (H, W) as (M, H, W) float32 in 0..1 on the CPU.

    Raises:
        BadImageError: another shape, or values that are not finite.
    """
    if not isinstance(mask, Tensor) or mask.ndim not in (2, 3) or 0 in mask.shape:
        found = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise BadImageError(f"{node} got a mask of the shape {found}, expected one or several masks as number × height × width. Connect a MASK output.")
    if not torch.isfinite(mask).all():
        raise BadImageError(f"{node} got a mask with values that are not finite. Draw or load the mask again.")
    with torch.inference_mode(False):
        return mask.detach().reshape(-1, *mask.shape[-2:]).to("cpu", torch.float32).clamp(0.0, 1.0).clone()


def token_grid(height: int, width: int, tokens: int) -> tuple[int, int]:
    """Rows and columns of a block that attends with ``tokens`` positions inside a latent of ``height`` × ``width``.

    A UNet halves odd sides upwards. Where a node scales the features by something else, the grid of the nearest proportion is taken.
    """
    rows, columns = height, width
    while rows * columns > tokens:
        rows, columns = -(-rows // 2), -(-columns // 2)
    if rows * columns == tokens:
        return rows, columns
    grids = [(r, tokens // r) for r in range(1, tokens + 1) if tokens % r == 0]
    return min(grids, key=lambda grid: abs(grid[0] * width - grid[1] * height) / (grid[0] * width + grid[1] * height))


@dataclass(frozen=True)
class Region:
    """Where exactly the mentions ``absent`` of all masked ones are missing: ``weight`` (B, N, 1) in 0..1 for N positions. All regions sum to 1."""

    absent: frozenset[str]
    weight: Tensor


def regions(masks: dict[str, Tensor], height: int, width: int, tokens: int, pictures: int, copies: int) -> list[Region]:
    """Who is where, the largest region first; regions of weight 0 everywhere are left out.

    Soft masks overlap: a position that is half anna's and half ben's holds a quarter of every combination.

    Args:
        masks: mention → (M, H, W) in 0..1. A batch of pictures takes the masks in turn.
        height, width: of the latent.
        tokens: N positions of the block.
        pictures, copies: the batch holds ``copies`` (cond, uncond, …) times ``pictures``.
    """
    grid = token_grid(height, width, tokens)
    rows = torch.arange(pictures).repeat(copies)
    inside = {}
    for mention, mask in masks.items():
        fitted = torch.nn.functional.interpolate(mask[:, None], size=grid, mode="area" if mask.shape[-2] >= grid[0] and mask.shape[-1] >= grid[1] else "bilinear")
        inside[mention] = fitted[:, 0].clamp(0.0, 1.0).flatten(1)[rows % len(mask)][..., None]
    found = []
    for size in range(len(masks) + 1):
        for absent in combinations(masks, size):
            weight = torch.ones(len(rows), tokens, 1)
            for mention, part in inside.items():
                weight = weight * (1.0 - part if mention in absent else part)
            if float(weight.max()) > 0.0:
                found.append(Region(frozenset(absent), weight))
    return sorted(found, key=lambda region: -float(region.weight.sum()))


def blended_difference(attention: nn.Module, n: Tensor, heads: int, base: tuple[Tensor, Tensor], others: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """What to add to a cross-attention's output that was computed with the contexts ``base`` to have other contexts elsewhere.

    It costs one attention for ``base`` and one for each of ``others``, and is exactly 0 where their weights are.

    Args:
        n: (B, N, c) the block's normalised features.
        base: contexts (B, L, d) of keys and of values.
        others: weight (B, N, 1) and the contexts of keys and of values.
    """
    from comfy.ldm.modules.attention import optimized_attention

    q = attention.to_q(n)

    def attend(keys: Tensor, values: Tensor) -> Tensor:
        return optimized_attention(q, attention.to_k(keys), attention.to_v(values), heads)

    plain = attend(*base)
    change = sum(weight.to(q) * (attend(keys, values) - plain) for weight, keys, values in others)
    return attention.to_out(change) - attention.to_out(torch.zeros_like(change[:1, :1]))
