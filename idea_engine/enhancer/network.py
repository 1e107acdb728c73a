"""Photographs of a face → the enhanced identity F → every part of an identity (METHODS §4)."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..faces.embedding import FACE_EMBEDDING_WIDTH

HEADS = 8  # of the attention to the names, METHODS §1.3


@dataclass(frozen=True)
class EnhancerSizes:
    """What the network's shapes follow from.

    Attributes:
        width: d, of the text condition. blocks: M, cross-attention blocks of the denoiser. count: n, pseudo-tokens of a person.
        hidden: of the trunk. rank: r of the own keys and values. head: of what is kept of the look at the whole head.
        names: rows of the names' spread that the anchor is joined by.
    """

    width: int
    blocks: int
    count: int = 2
    hidden: int = 448
    rank: int = 64
    head: int = 256
    names: int = 16


@dataclass(frozen=True)
class Parts:
    """What the network adds to a plain word, for B people: all of it 0 before anything is learned.

    Attributes:
        ending: (B, d), see :attr:`~idea_engine.identity.identity.Identity.ending`.
        keys, values: (M, B, n, d): offsets of the own keys and values, one for each cross-attention block.
    """

    ending: Tensor
    keys: Tensor
    values: Tensor


class Enhancer(nn.Module):
    """``F = out(norm(q_i + attention(q_i, names)))`` with n distinct queries made from the photographs, and a head for each part.

    A photograph is seen twice: as its face embedding, and as a wider crop of the head, in which hair and beard are. Several photographs are
    averaged by their quality and by what the network thinks each of them shows. The heads begin at zero, an exact no-op.
    """

    def __init__(self, sizes: EnhancerSizes, anchor: Tensor, spread: Tensor):
        """Args: anchor: (n, d) what an average name looks like after the text encoder. spread: (names, d), axes of the single names' spread."""
        super().__init__()
        self.sizes = sizes
        d, h = sizes.width, sizes.hidden
        self.register_buffer("anchor", anchor.detach().clone().float())
        self.register_buffer("spread", spread.detach().clone().float())
        self.tower = HeadTower(sizes.head)
        self.look = nn.Sequential(nn.Linear(FACE_EMBEDDING_WIDTH + sizes.head, h), nn.GELU(), nn.Linear(h, h), nn.GELU())
        self.trust = nn.Linear(h, 1)
        self.nobody = nn.Parameter(torch.zeros(h))  # the average person, where no photograph is shown
        self.norm = nn.LayerNorm(h)
        inner = HEADS * max(1, min(d, h) // HEADS)
        self.query = nn.Linear(h, sizes.count * inner)
        self.names = nn.Linear(d, inner)
        self.attention = nn.MultiheadAttention(inner, HEADS, batch_first=True)
        self.norm_out = nn.LayerNorm(inner)
        self.out = nn.Linear(inner, 2 * d)
        self.norm_enhanced = nn.LayerNorm(2 * d)
        self.ending = nn.Linear(sizes.count * 2 * d, d) if d <= h else nn.Sequential(nn.Linear(sizes.count * 2 * d, h, bias=False), nn.Linear(h, d))
        self.down = nn.Linear(2 * d, sizes.rank, bias=False)
        self.up_key = nn.Parameter(torch.zeros(sizes.blocks, d, sizes.rank))
        self.up_value = nn.Parameter(torch.zeros(sizes.blocks, d, sizes.rank))
        last = self.ending if isinstance(self.ending, nn.Linear) else self.ending[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    @property
    def size(self) -> Tensor:
        """Scalar: root mean square of an average name as cross-attention reads it. All changes are shares of it, for encoders differ in it by factors."""
        return self.anchor.square().mean().sqrt()

    def see(self, vectors: Tensor, weights: Tensor, heads: Tensor) -> Tensor:
        """Photographs → what is seen of each person.

        Args:
            vectors: (B, F, 512) unit-length face embeddings.
            weights: (B, F) > 0, the quality of each photograph.
            heads: (B, F, 3, S, S) in -1..1, see :mod:`idea_engine.faces.head`.

        Returns:
            (B, h).
        """
        return self.judge(vectors, weights, self.tower(heads.flatten(0, 1)).unflatten(0, heads.shape[:2]))

    def judge(self, vectors: Tensor, weights: Tensor, wide: Tensor) -> Tensor:
        """As :meth:`see`, with the looks at the heads (B, F, w) that the tower has given."""
        # Unit vectors in 512 dimensions have entries of 1/√512; the network likes them near 1.
        seen = self.look(torch.cat([vectors * FACE_EMBEDDING_WIDTH**0.5, wide], -1))
        trusted = weights[..., None] * torch.sigmoid(self.trust(seen))
        return (seen * trusted).sum(1) / trusted.sum(1)

    def enhance(self, seen: Tensor) -> Tensor:
        """(B, h) → (B, n, 2d): the enhanced identity F, its n rows distinct."""
        queries = self.query(self.norm(seen)).unflatten(-1, (self.sizes.count, -1))
        names = self.names(torch.cat([self.anchor, self.spread]) / self.size).expand(len(seen), -1, -1)
        mixed, _ = self.attention(queries, names, names, need_weights=False)
        return self.norm_enhanced(self.out(self.norm_out(queries + mixed)))

    def parts(self, enhanced: Tensor) -> Parts:
        """(B, n, 2d) → what is added to a plain word."""
        low = self.down(enhanced)
        keys, values = (self.size * torch.einsum("mdr,bnr->mbnd", up, low) for up in (self.up_key, self.up_value))
        return Parts(self.size * self.ending(enhanced.flatten(1)), keys, values)

    def forward(self, vectors: Tensor, weights: Tensor, heads: Tensor, shown: Tensor | None = None) -> Parts:
        """Photographs as in :meth:`see` → parts of B people; where ``shown`` (B,) is False, those of the average person."""
        seen = self.see(vectors, weights, heads)
        if shown is not None:
            seen = torch.where(shown[:, None], seen, self.nobody)
        return self.parts(self.enhance(seen))


class HeadTower(nn.Module):
    """(B, 3, 64, 64) heads in -1..1 → (B, w): a few convolutions that keep where things are."""

    def __init__(self, width: int):
        super().__init__()
        layers: list[nn.Module] = []
        for n_in, n_out in ((3, 32), (32, 64), (64, 96), (96, 64)):
            layers += [nn.Conv2d(n_in, n_out, 3, 2, 1), nn.GroupNorm(8, n_out), nn.GELU()]
        self.body = nn.Sequential(*layers)
        self.out = nn.Linear(64 * 16, width)

    def forward(self, heads: Tensor) -> Tensor:
        return self.out(self.body(heads).flatten(1))
