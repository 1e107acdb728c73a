"""What teaches the network: the frozen model must find each person, shown on some photographs, in the noise of another picture."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Sequence

import torch
from torch import Tensor

from ..backends.base import CrossAttentionEdit, DiffusionBackend, Prompt, TextCondition
from ..backends.templates import prompt_inputs
from ..training.losses import face_weights, min_snr_weights, noise_loss
from .network import Enhancer, Parts

SNR_CEILING = 5.0  # of the min-SNR weights, arXiv 2303.09556


@dataclass(frozen=True)
class Lesson:
    """One batch of B people, on the backend's device.

    Attributes:
        vectors: (B, F, 512), weights: (B, F), heads: (B, F, 3, S, S): the photographs, as :meth:`~idea_engine.enhancer.network.Enhancer.see` reads them.
        shown: (B,) False where the face is dropped, so that the average person is learned too.
        prompts: one per picture, with the places for the person.
        latents, noise: (B, C, h, w); timesteps: (B,): another picture of each person.
        masks: (B, h, w) in 0..1: face and hair in it.
        described: the same prompts with the person in words; empty where nobody is described.
    """

    vectors: Tensor
    weights: Tensor
    heads: Tensor
    shown: Tensor
    prompts: Sequence[Prompt]
    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    masks: Tensor
    described: Sequence[Prompt] = ()


def found_in_noise(
    network: Enhancer, backend: DiffusionBackend, lesson: Lesson, start: Mapping[str, Tensor], head_share: float, told: float = 0.0,
) -> Tensor:
    """(B,) losses: the error of the frozen model's prediction, ``head_share`` of it from face and hair alone; differentiable inside ``backend.training()``.

    The target is the noise; or, by the share ``told``, what the same model predicts when a caption describes the person in words. The words know
    less of the person than the picture does, but the model's own prediction is free of the chance in the noise: what words can say is learned in a
    tenth of the steps.

    Args:
        start: encoder key → (n, w) the word that stands for everybody.
    """
    with torch.no_grad():
        plain = backend.encode_text(prompt_inputs(backend, lesson.prompts, start), [prompt.end for prompt in lesson.prompts])
    parts = network(lesson.vectors, lesson.weights, lesson.heads, lesson.shown)
    prediction = backend.predict(lesson.latents, lesson.noise, lesson.timesteps, *as_read(parts, plain, lesson.prompts))
    weights = face_weights(lesson.masks, head_share)
    losses = noise_loss(prediction.output, prediction.target, weights)
    if told:
        with torch.no_grad():
            words = backend.encode_text(prompt_inputs(backend, lesson.described, {}), [prompt.end for prompt in lesson.described])
            taught = backend.predict(lesson.latents, lesson.noise, lesson.timesteps, words, CrossAttentionEdit()).output
        losses = (1 - told) * losses + told * noise_loss(prediction.output, taught, weights)
    return losses * min_snr_weights(prediction.snr, prediction.velocity, SNR_CEILING)


def as_read(parts: Parts, plain: TextCondition, prompts: Sequence[Prompt]) -> tuple[TextCondition, CrossAttentionEdit]:
    """What cross-attention reads of B people in their prompts' text condition."""
    device = plain.context.device
    ends = torch.tensor([prompt.end for prompt in prompts], device=device)
    after = torch.arange(plain.context.shape[1], device=device) >= ends[:, None]
    context = plain.context + after[:, :, None] * parts.ending[:, None]
    positions = torch.tensor([prompt.positions for prompt in prompts], device=device)
    return TextCondition(context, plain.pooled), CrossAttentionEdit(positions, parts.keys, parts.values)


def told_apart(looks: Tensor, others: Tensor, temperature: float = 0.1) -> Tensor:
    """Scalar: looks (B, w) at B people must be nearest to the looks at the same people in other photographs (InfoNCE, both ways)."""
    looks, others = (torch.nn.functional.normalize(rows.float(), dim=1) for rows in (looks, others))
    alike = looks @ others.T / temperature
    own = torch.arange(len(alike), device=alike.device)
    return (torch.nn.functional.cross_entropy(alike, own) + torch.nn.functional.cross_entropy(alike.T, own)) / 2
