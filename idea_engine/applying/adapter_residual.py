"""What a trained adapter adds to a text condition."""
from __future__ import annotations

from typing import Mapping

import torch
from torch import Tensor, nn

from ..identity.identity import AdapterWeights
from ..methods.adapter import HEADS, attend_with


def adapter_residual(weights: AdapterWeights, context: Tensor, strength: float = 1.0) -> Tensor:
    """What a trained adapter adds to a text condition (B, L, d), computed in float32 and scaled by ``strength``."""
    with torch.no_grad():
        parts = [
            attend_with(_attention(state, features.shape[-1]).to(context.device), context.float(), features.float()) for features, state in weights.parts()
        ]
        return strength * weights.gate * (parts[0] if len(parts) == 1 else torch.stack(parts).sum(0))


def _attention(state: Mapping[str, Tensor], width: int) -> nn.MultiheadAttention:
    with torch.inference_mode(False):
        attention = nn.MultiheadAttention(width, HEADS, batch_first=True, device="meta")
        # Copies: a float32 tensor from a host may be an inference tensor, which cannot become a parameter.
        attention.load_state_dict({name: tensor.float().clone() for name, tensor in state.items()}, assign=True)
        return attention.train(False).requires_grad_(False)
