"""The fuser: Grounding DINO's encoder layers over the words of a prompt and the patches of a face (METHODS §3).

Written out here, in the published names, so that no version of any library decides whether a checkpoint loads; a test holds every layer
against the one in ``transformers``. Nothing needs an extension: deformable attention is four looks through ``grid_sample``.
"""
from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import FaceCLIPConfig
from .text_tower import SelfAttention, merge, split


class BiAttention(nn.Module):
    """Patches ask words and words ask patches, with one matrix of likeness read in both directions. ``v`` face, ``l`` language."""

    def __init__(self, width: int, inner: int, heads: int):
        super().__init__()
        self.heads = heads
        self.v_proj, self.l_proj = nn.Linear(width, inner), nn.Linear(width, inner)
        self.values_v_proj, self.values_l_proj = nn.Linear(width, inner), nn.Linear(width, inner)
        self.out_v_proj, self.out_l_proj = nn.Linear(inner, width), nn.Linear(inner, width)

    def forward(self, patches: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, d), (B, L, d) → what each of them hears from the other."""
        asks_v, asks_l = split(self.v_proj(patches), self.heads), split(self.l_proj(words), self.heads)
        says_v, says_l = split(self.values_v_proj(patches), self.heads), split(self.values_l_proj(words), self.heads)
        to_patches = merge(F.scaled_dot_product_attention(asks_v, asks_l, says_l))
        to_words = merge(F.scaled_dot_product_attention(asks_l, asks_v, says_v))
        return self.out_v_proj(to_patches), self.out_l_proj(to_words)


class FusionLayer(nn.Module):
    """Bidirectional attention with a learned gain per channel. Both streams go on normalised, as in Grounding DINO."""

    def __init__(self, width: int, inner: int, heads: int):
        super().__init__()
        self.gamma_v, self.gamma_l = nn.Parameter(torch.full((width,), 1e-4)), nn.Parameter(torch.full((width,), 1e-4))
        self.layer_norm_v, self.layer_norm_l = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = BiAttention(width, inner, heads)

    def forward(self, patches: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        patches, words = self.layer_norm_v(patches), self.layer_norm_l(words)
        to_patches, to_words = self.attn(patches, words)
        return patches + self.gamma_v * to_patches, words + self.gamma_l * to_words


class TextLayer(nn.Module):
    """Words among themselves: a post-norm transformer layer."""

    def __init__(self, width: int, inner: int, heads: int):
        super().__init__()
        self.self_attn = SelfAttention(width, heads)
        self.linear1, self.linear2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, words: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        words = self.norm1(words + self.self_attn(words, positions, mask))
        return self.norm2(words + self.linear2(F.relu(self.linear1(words))))


class DeformableAttention(nn.Module):
    """Each patch looks at a few places around itself, chosen by what it is. One level, a square grid."""

    def __init__(self, width: int, heads: int, points: int):
        super().__init__()
        self.heads, self.points = heads, points
        self.sampling_offsets = nn.Linear(width, heads * points * 2)
        self.attention_weights = nn.Linear(width, heads * points)
        self.value_proj, self.output_proj = nn.Linear(width, width), nn.Linear(width, width)
        self._start_in_a_ring()

    def _start_in_a_ring(self) -> None:
        """Deformable DETR's start: head h looks in direction 2πh / heads, its points 1, 2, … patches away, all with equal weight."""
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.attention_weights.bias)
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        ways = torch.stack([angles.cos(), angles.sin()], -1)
        ways = ways / ways.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.points + 1).view(1, -1, 1)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_((ways[:, None] * steps).flatten())

    def forward(self, patches: Tensor, positions: Tensor) -> Tensor:
        """(B, S, d), (B or 1, S, d) → (B, S, d)."""
        batch, count, _ = patches.shape
        side = math.isqrt(count)
        asks = patches + positions
        # in units of the whole grid, 0..1; float32, because neighbouring places are 1/12 apart and not every device samples halves
        centres = (torch.arange(side, device=patches.device, dtype=torch.float32) + 0.5) / side
        here = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1).view(1, count, 1, 1, 2)
        offsets = self.sampling_offsets(asks).float().view(batch, count, self.heads, self.points, 2)
        places = (here + offsets / side) * 2 - 1  # grid_sample counts from -1 to 1
        values = split(self.value_proj(patches), self.heads).transpose(2, 3).reshape(batch * self.heads, -1, side, side)
        seen = F.grid_sample(values.float(), places.transpose(1, 2).flatten(0, 1), mode="bilinear", padding_mode="zeros", align_corners=False)
        weights = self.attention_weights(asks).float().view(batch, count, self.heads, self.points).softmax(-1).transpose(1, 2).flatten(0, 1)
        heard = (seen * weights[:, None]).sum(-1)  # (B · heads, d / heads, S)
        return self.output_proj(heard.view(batch, -1, count).transpose(1, 2).to(patches.dtype))


class FaceLayer(nn.Module):
    """Patches among themselves: deformable attention and a feed-forward part, post-norm."""

    def __init__(self, width: int, inner: int, heads: int, points: int):
        super().__init__()
        self.self_attn = DeformableAttention(width, heads, points)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.linear1, self.linear2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, patches: Tensor, positions: Tensor) -> Tensor:
        patches = self.norm1(patches + self.self_attn(patches, positions))
        return self.norm2(patches + self.linear2(F.relu(self.linear1(patches))))


class _Layers(nn.Module):
    def __init__(self, config: FaceCLIPConfig):
        super().__init__()
        width, inner, heads = config.text_width, config.fuser_inner, config.fuser_heads
        count = range(config.fuser_layers)
        self.layers = nn.ModuleList(FaceLayer(width, inner, heads, config.points) for _ in count)
        self.text_layers = nn.ModuleList(TextLayer(width, inner // 2, heads // 2) for _ in count)
        self.fusion_layers = nn.ModuleList(FusionLayer(width, inner // 2, heads // 2) for _ in count)


class Fuser(nn.Module):
    """Words and patches → the words, knowing the face."""

    def __init__(self, config: FaceCLIPConfig):
        super().__init__()
        self.encoder = _Layers(config)
        # published with the weights, for a decoder that is not used: kept so that every key has its place
        self.enc_output, self.enc_output_norm = nn.Linear(config.text_width, config.text_width), nn.LayerNorm(config.text_width)

    def forward(self, words: Tensor, word_positions: Tensor, patches: Tensor, patch_positions: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, L, d) words and (B, S, d) patches with their positions (B or 1, …) → (B, L, d).

        Args:
            mask: (B, L, L) bool for the text layers, see ``text_tower.word_mask``; None = every row sees every row (as published).
        """
        parts = list(zip(self.encoder.fusion_layers, self.encoder.text_layers, self.encoder.layers))
        for number, (fusion, text, face) in enumerate(parts, 1):
            patches, words = fusion(patches, words)
            words = text(words, word_positions, mask)
            if number < len(parts):  # nobody reads the patches after the last layer
                patches = face(patches, patch_positions)
        return words
