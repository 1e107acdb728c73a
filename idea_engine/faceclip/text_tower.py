"""CLIP's text transformer, in the published names of its weights."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SelfAttention(nn.Module):
    """Multi-head self-attention with one matrix for query, key and value, named as ``torch.nn.MultiheadAttention`` names them."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: Tensor, positions: Tensor | None = None, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """(B, L, d) → (B, L, d).

        Args:
            positions: (B or 1, L, d), added to what asks and what is asked, not to what is handed on.
            mask: (B, L, L) bool, True where row may see column; None = everything.
        """
        weight, bias = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        placed = x if positions is None else x + positions
        query, key, value = (split(F.linear(source, w, b), self.heads) for source, w, b in zip((placed, placed, x), weight, bias))
        mask = None if mask is None else mask[:, None]
        return self.out_proj(merge(F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)))


def split(x: Tensor, heads: int) -> Tensor:
    """(B, L, d) → (B, heads, L, d / heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge(x: Tensor) -> Tensor:
    """(B, heads, L, d / heads) → (B, L, d)."""
    return x.transpose(1, 2).flatten(2)


class TextBlock(nn.Module):
    """One pre-norm layer of CLIP."""

    def __init__(self, width: int, heads: int, inner: int, activation: str):
        super().__init__()
        self.quick = activation == "quick_gelu"
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = SelfAttention(width, heads)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, inner), "c_proj": nn.Linear(inner, width)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x), causal=True)
        hidden = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](hidden * torch.sigmoid(1.702 * hidden) if self.quick else F.gelu(hidden))


class TextTransformer(nn.Module):
    """The layers, below the published name ``transformer.resblocks``."""

    def __init__(self, width: int, layers: int, heads: int, inner: int, activation: str):
        super().__init__()
        self.resblocks = nn.ModuleList(TextBlock(width, heads, inner, activation) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, d) token embeddings with their positions → (B, L, d), before the final norm."""
        for block in self.resblocks:
            x = block(x)
        return x


def word_mask(ids: Tensor, start: int, end: int, pad: int) -> Tensor:
    """Who may see whom in the fuser's text layers: words see words, the start and the end only themselves.

    Args:
        ids: (B, L) token ids. Where ``pad`` is the end token (as in other CLIPs), its rows count as ends.

    Returns:
        (B, L, L) bool. A padding row may see itself: a softmax over nothing has no value.
    """
    special = ids.eq(start) | ids.eq(end) | ids.eq(pad)
    groups = (~special, ids.eq(start), ids.eq(end))
    seen = torch.stack([group[:, :, None] & group[:, None, :] for group in groups]).any(0)
    return seen | torch.eye(ids.shape[1], dtype=torch.bool, device=ids.device)
