"""The ID-adapter on the text condition, and the identity's own keys and values (METHODS §1.4)."""
from __future__ import annotations

from typing import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..identity.identity import AdapterWeights

HEADS = 8  # METHODS §1.3 and §1.4
BETA = 0.4  # METHODS §1.4; 0.3 is the class default of the released code, 0.4 what its script passes


class IDAdapter(nn.Module):
    """``y' = y + β·tanh(γ)·SelfAttention([y ; f])[:, :L]`` with ``f = Linear(2d→d)(F)``; γ starts at 0, an exact no-op."""

    def __init__(self, width: int, beta: float = BETA):
        super().__init__()
        self.beta = beta
        self.project = nn.Linear(2 * width, width)
        self.attention = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, context: Tensor, enhanced: Tensor) -> Tensor:
        """The whole residual.

        Args:
            context: (B, L, d) text condition y.
            enhanced: (n, 2d) from the ID-Enhancer.

        Returns:
            (B, L, d): what is to be added to y.
        """
        return self.beta * torch.tanh(self.gamma) * attend_with(self.attention, context, self.project(enhanced))

    def bake(self, enhanced: Tensor, scope: str) -> AdapterWeights:
        """The adapter for one person: their features projected once and for all, gate and attention as they are now."""
        attention = {name: tensor.detach().clone() for name, tensor in self.attention.state_dict().items()}
        gate = float(self.beta * torch.tanh(self.gamma.detach()))
        return AdapterWeights(self.project(enhanced).detach(), attention, gate, scope)


def attend_with(attention: nn.MultiheadAttention, context: Tensor, features: Tensor) -> Tensor:
    """``SelfAttention([y ; f])[:, :L]`` for y (B, L, d) and f (n, d)."""
    joined = torch.cat([context, features.to(context).expand(context.shape[0], -1, -1)], dim=1)
    mixed, _ = attention(joined, joined, joined, need_weights=False)
    return mixed[:, : context.shape[1]]


class IDKeyValue(nn.Module):
    """Keys and values of the identity's own positions, one offset per cross-attention block, conditioned on the enhanced identity.

    With rank 0 the offsets are learned as they are, (M, n, d) numbers each for keys and values, and the enhanced identity is not read.

    ``δ_b = U_b · down(norm(F))``: ``down`` (2d→r) is shared, ``U_b`` (r→d) belongs to block b and starts at zero, an exact no-op. The
    offset is added to the text condition where the identity's tokens stand, and only as that block's ``to_k`` (or ``to_v``) reads it, so
    other words keep their keys and values.
    """

    def __init__(self, widths: Sequence[int], blocks: int, rank: int, count: int):
        """Args: widths: w of every text encoder, in the order in which their outputs are joined to d; at rank 0 each has parameters of its own, for
        encoders differ in size."""
        super().__init__()
        self.rank, width = rank, sum(widths)
        if rank == 0:
            self.own_keys = nn.ParameterList(torch.zeros(blocks, count, w) for w in widths)
            self.own_values = nn.ParameterList(torch.zeros(blocks, count, w) for w in widths)
            return
        self.norm = nn.LayerNorm(2 * width, elementwise_affine=False)
        self.down = nn.Linear(2 * width, rank, bias=False)
        self.up_key = nn.Parameter(torch.zeros(blocks, width, rank))
        self.up_value = nn.Parameter(torch.zeros(blocks, width, rank))

    def offsets(self) -> list[nn.Parameter]:
        """What is zero at the start."""
        return [*self.own_keys, *self.own_values] if self.rank == 0 else [self.up_key, self.up_value]

    @torch.no_grad()
    def begin(self, keys: Mapping[int, Tensor], values: Mapping[int, Tensor]) -> bool:
        """Start at an identity's own keys and values, block number → (n, d); False, and nothing is changed, where their shapes are others."""
        if self.rank:
            return False
        for own, offsets in ((self.own_keys, keys), (self.own_values, values)):
            wanted = (own[0].shape[1], sum(part.shape[2] for part in own))
            if set(offsets) != set(range(own[0].shape[0])) or any(tuple(rows.shape) != wanted for rows in offsets.values()):
                return False
        for own, offsets in ((self.own_keys, keys), (self.own_values, values)):
            if offsets:
                stacked = torch.stack([offsets[block] for block in range(len(offsets))])
                for part, rows in zip(own, stacked.split([part.shape[2] for part in own], dim=-1)):
                    part.copy_(rows)
        return True

    def forward(self, enhanced: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, 2d), or None at rank 0 → key and value offsets, each (M, n, d) for M blocks."""
        if self.rank == 0:
            return _joined(self.own_keys), _joined(self.own_values)
        low = self.down(self.norm(enhanced))
        return torch.einsum("mdr,nr->mnd", self.up_key, low), torch.einsum("mdr,nr->mnd", self.up_value, low)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=-1)
