"""The ID-Enhancer as it was published: the face asks, the textual anchor answers (METHODS §1.3)."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..faces.embedding import FACE_EMBEDDING_WIDTH
from .adapter import HEADS


class IDEnhancer(nn.Module):
    """Cross-attention from a face embedding to the anchor rows.

    ``q = Wq·expand(e)`` repeated to n rows, ``k = v = Wkv·A``, eight heads, then ``Linear(d→2d)``.
    """

    def __init__(self, width: int):
        super().__init__()
        self.expand = nn.Linear(FACE_EMBEDDING_WIDTH, width)
        self.to_q = nn.Linear(width, width)
        self.to_kv = nn.Linear(width, width)
        self.attention = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.out = nn.Linear(width, 2 * width)

    def forward(self, face: Tensor, anchor: Tensor) -> Tensor:
        """Enhance one identity.

        Args:
            face: (512,) unit-length face embedding.
            anchor: (n, d) anchor rows, the encoders' parts joined.

        Returns:
            (n, 2d), the identity-enhanced embedding F.
        """
        query = self.to_q(self.expand(face)).expand(anchor.shape[0], -1)
        memory = self.to_kv(anchor)
        mixed, _ = self.attention(query[None], memory[None], memory[None], need_weights=False)
        return self.out(mixed[0])


def seeded(seed: int, build, *args, **kwargs) -> nn.Module:
    """Build a module with random weights that depend on ``seed`` only, leaving the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(*args, **kwargs)
