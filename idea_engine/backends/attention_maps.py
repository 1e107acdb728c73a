"""Where words look: cross-attention maps, gathered while the network runs."""
from __future__ import annotations

from typing import Sequence

import torch
from torch import Tensor

FINEST_SCALE = 4  # 16×16 and coarser at SD's 64×64 latents, where attention follows meaning; finer grids follow edges


def map_blocks(scales: Sequence[int]) -> tuple[int, ...]:
    """Numbers of the blocks whose maps are looked at: those whose grid is at least 4 times coarser than the latent.

    That is 16×16 and 8×8 for SD1.x and SD2.x at 512 pixels and 32×32 for SDXL at 1024. A network without such blocks shows its coarsest.

    Args:
        scales: see :attr:`~idea_engine.backends.base.DiffusionBackend.block_scales`.
    """
    finest = min(FINEST_SCALE, max(scales))
    return tuple(number for number, scale in enumerate(scales) if scale >= finest)


def grid_size(latent: Sequence[int], scale: int) -> tuple[int, int]:
    """Height and width of a block's grid: the latent's (h, w), halved and rounded up as often as the network does."""
    return tuple(-(-side // scale) for side in latent)


def attention_columns(query: Tensor, key: Tensor, heads: int, columns: Tensor) -> Tensor:
    """The share of every pixel's attention that goes to groups of positions, averaged over the heads.

    Attention with the groups' indicators as values *is* that share, so the fused attention gives it, and the (hw, L) matrix of all weights is
    neither kept nor, where the kernel can, ever formed.

    Args:
        query: (B, hw, c). key: (B, L, c).
        columns: (B, L, m) or (L, m), 1 where a position belongs to a group.

    Returns:
        (B, hw, m) float32 in 0..1, differentiable.
    """
    split = lambda x: x.unflatten(-1, (heads, -1)).transpose(1, 2)  # noqa: E731
    values = columns.to(query).expand(query.shape[0], -1, -1)[:, None].expand(-1, heads, -1, -1)
    # Kernels want values as wide as the keys; the columns beyond are zero.
    width = query.shape[-1] // heads
    pieces = [torch.nn.functional.pad(piece, (0, width - piece.shape[-1])) for piece in values.split(width, dim=-1)]
    shares = [torch.nn.functional.scaled_dot_product_attention(split(query), split(key), piece) for piece in pieces]
    return torch.cat(shares, dim=-1)[..., : columns.shape[-1]].float().mean(1)


class AttentionMaps:
    """A request for the attention that groups of positions get, filled while a network runs once.

    Attributes:
        columns: (B, L, m), see :func:`attention_columns`.
        found: block number → (B, hw, m) float32.
    """

    def __init__(self, columns: Tensor):
        self.columns = columns
        self.found: dict[int, Tensor] = {}

    @classmethod
    def of_positions(cls, positions: Tensor, length: int) -> "AttentionMaps":
        """One group: all of ``positions`` (B, n) of a text condition of ``length`` positions together."""
        return cls(torch.zeros(len(positions), length, device=positions.device).scatter_(1, positions, 1.0)[..., None])

    def add(self, block: int, query: Tensor, key: Tensor, heads: int) -> None:
        """Called by a backend for each of :func:`map_blocks`. Recomputed activations (checkpointing) give the same map once more."""
        self.found[block] = attention_columns(query, key, heads, self.columns)

    def grids(self, latent: Sequence[int], scales: Sequence[int]) -> list[Tensor]:
        """The maps as pictures, in run order: each (B, m, h', w') at its block's own size."""
        return [found.transpose(1, 2).unflatten(2, grid_size(latent, scales[block])) for block, found in sorted(self.found.items())]

    def picture(self, latent: Sequence[int], scales: Sequence[int]) -> Tensor:
        """(B, m, h, w) at the latent's size: the average of all blocks. All positions together still get 1 at every pixel."""
        resized = [
            torch.nn.functional.interpolate(grid, size=tuple(latent), mode="bilinear", align_corners=False) for grid in self.grids(latent, scales)
        ]
        return torch.stack(resized).mean(0)


def inside(maps: Tensor, masks: Tensor) -> Tensor:
    """The share of a map's attention that falls inside a mask: (B, h, w) ≥ 0 and (B, h, w) in 0..1 → (B,) in 0..1."""
    return (maps * masks).flatten(1).sum(1) / maps.flatten(1).sum(1).clamp_min(1e-12)
