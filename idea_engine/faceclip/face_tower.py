"""The face tower: an ArcFace-style vision transformer, 112 × 112 pixels → one class token and a grid of patch tokens (METHODS §3)."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import FaceCLIPConfig
from .text_tower import merge, split

_BATCH_NORM_EPS = 2e-5  # ArcFace's


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (split(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        return self.proj(merge(F.scaled_dot_product_attention(query, key, value)))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, inner: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = _Attention(width, heads)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, inner), "fc2": nn.Linear(inner, width)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](F.relu6(self.mlp["fc1"](self.norm2(x))))


class FaceTower(nn.Module):
    """(B, 3, H, W) faces in 0..1 → class token and patch tokens."""

    def __init__(self, config: FaceCLIPConfig):
        super().__init__()
        width, count = config.face_width, config.grid ** 2
        self.side = config.face_side
        self.pos_embed = nn.Parameter(torch.zeros(1, count, width))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))  # published; training hides patches behind it, nothing else uses it
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, config.patch, config.patch)})
        self.blocks = nn.ModuleList(_Block(width, config.face_heads, config.face_inner) for _ in range(config.face_layers))
        self.norm = nn.LayerNorm(width)
        self.feature = nn.Sequential(
            nn.Linear(width * count, width, bias=False), nn.BatchNorm1d(width, eps=_BATCH_NORM_EPS),
            nn.Linear(width, config.face_classes, bias=False), nn.BatchNorm1d(config.face_classes, eps=_BATCH_NORM_EPS),
        )
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in 0..1 → (B, 512) class tokens, not normalised, and (B, grid², face_width) patch tokens."""
        if faces.shape[-2:] != (self.side, self.side):
            faces = F.interpolate(faces, (self.side, self.side), mode="bilinear", align_corners=False)
        x = self.patch_embed["proj"](faces).flatten(2).transpose(1, 2) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.feature(x.flatten(1)), x
