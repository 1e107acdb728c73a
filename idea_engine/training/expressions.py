"""What a face does in a photograph, told by the diffusion model itself.

The network that must name the noise finds it best under the words that fit the picture (a diffusion classifier, arXiv 2303.16203). What a
photograph's prompt says of the expression need not be learned as a part of the person, so that the person can smile elsewhere.
"""
from __future__ import annotations

import logging
from typing import Sequence

import torch
from torch import Tensor

from ..backends.base import CrossAttentionEdit, DiffusionBackend
from ..backends.templates import prompt_inputs
from ..prompts.trigger import PLACEHOLDER
from .losses import face_weights, noise_loss

_log = logging.getLogger(__name__)
# The words are those of everyday captions.
EXPRESSIONS = ("with a neutral face", "smiling", "looking sad", "looking surprised", "looking angry")
_SOMEBODY = "a person"
_LEVELS = (0.35, 0.5, 0.65, 0.8)  # of the schedule: faces are decided where neither everything nor nothing can be seen


def expression_captions(backend: DiffusionBackend, latents: Tensor, masks: Tensor | None, seed: int) -> tuple[str, ...]:
    """:func:`read_expressions` before a training; nothing, with a warning, where memory does not suffice."""
    try:
        with backend.training():
            return tuple(read_expressions(backend, latents, None if masks is None else masks.to(backend.device), seed))
    except RuntimeError as error:
        if not backend.is_out_of_memory(error):
            raise
        _log.warning("There is not enough memory to read the expressions in the photographs. Write them into caption of the Train node.")
        return ()


@torch.no_grad()
def read_expressions(backend: DiffusionBackend, latents: Tensor, masks: Tensor | None, seed: int, template: str = "a photo of {tokens}") -> list[str]:
    """The expression of each picture, one of :data:`EXPRESSIONS`.

    Args:
        latents: (P, C, h, w), as the backend encodes pictures.
        masks: (P, h, w) face masks in 0..1, which the comparison is limited to; None compares whole pictures.
        seed: of the noise, the same for every word.
    """
    texts = [template.replace(PLACEHOLDER, _SOMEBODY) + " " + words for words in EXPRESSIONS]
    prompts = [backend.tokenize(text, "", 0) for text in texts]
    conditions = backend.encode_text(prompt_inputs(backend, prompts, {}), [prompt.end for prompt in prompts])
    timesteps = torch.tensor([int(level * (backend.timesteps - 1)) for level in _LEVELS], device=backend.device)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(_LEVELS), *latents.shape[1:], generator=generator).to(latents)
    return [EXPRESSIONS[_best(backend, latents[i], None if masks is None else masks[i], conditions, noise, timesteps)] for i in range(len(latents))]


def _best(backend, latent: Tensor, mask: Tensor | None, conditions, noise: Tensor, timesteps: Tensor) -> int:
    """The number of the text under which one picture's noise is found best."""
    count = len(timesteps)
    weights = None if mask is None else face_weights(mask[None].expand(count, -1, -1).to(latent), 1.0)
    errors: Sequence[float] = [
        float(noise_loss(prediction.output, prediction.target, weights).mean())
        for number in range(len(EXPRESSIONS))
        for prediction in [backend.predict(latent.expand(count, -1, -1, -1), noise, timesteps, conditions.rows([number] * count), CrossAttentionEdit())]
    ]
    return min(range(len(errors)), key=errors.__getitem__)
