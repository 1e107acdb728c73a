"""Prompt templates as a backend's text encoders read them, with an identity's rows in their places."""
from __future__ import annotations

from typing import Mapping, Sequence

import torch
from torch import Tensor

from ..prompts.trigger import PLACEHOLDER
from .base import DiffusionBackend, Prompt


def tokenize_template(backend: DiffusionBackend, template: str, count: int) -> Prompt:
    """'a photo of a face of {tokens} person' → a :class:`Prompt` with ``count`` places kept."""
    before, _, after = template.partition(PLACEHOLDER)
    return backend.tokenize(before, after, count)


def prompt_inputs(backend: DiffusionBackend, prompts: Sequence[Prompt], tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Input embeddings of prompts with the identity's rows in their places.

    Args:
        tokens: encoder key → (n, w) float32, or (B, n, w) where the prompts have different ones; may require gradients; an encoder without
            rows keeps what stands in the prompts.

    Returns:
        encoder key → (B, L, w) float32.
    """
    inputs = {}
    for key in backend.family.encoders:
        ids = torch.stack([prompt.ids[key] for prompt in prompts]).to(backend.device)
        rows = backend.token_rows(key, ids.flatten()).reshape(*ids.shape, -1)
        if key not in tokens:
            inputs[key] = rows
            continue
        places = torch.tensor([prompt.positions for prompt in prompts], device=backend.device)
        index = places[:, :, None].expand(-1, -1, rows.shape[-1])
        inputs[key] = rows.scatter(1, index, tokens[key].to(rows).expand(len(prompts), -1, -1))
    return inputs
