"""A training looked at from outside: pictures with a fixed seed every few steps, how alike they are, and the best step so far.

Dimension letters: K pictures of one preview, (H, W) their pixels.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import torch
from torch import Tensor

from ..backends.base import CrossAttentionEdit, DiffusionBackend, Prompt
from ..backends.templates import prompt_inputs, tokenize_template
from ..methods.module import IdentityModule
from ..prompts.trigger import PLACEHOLDER
from .checkpoint import Progress
from .prior import elsewhere

TEMPLATE = "a photo of {tokens} person"  # the plainest that the training prompts allow
ANYBODY = "a person"  # stands where the person's word would
SAMPLER_STEPS = 12  # enough for a face to be recognised; a finished picture takes twice as many
GUIDANCE = 5.0  # of classifier-free guidance
_CHANNELS, _CELL = 4, 8  # of the latents of every family, and how many pixels one of their cells is wide
JUDGED = 2  # pictures of a preview that is judged: one alone is as much luck as likeness


@dataclass(frozen=True)
class Preview:
    """What the person looks like after ``step``: pictures (K, H, W, 3) float32 in 0..1 on the CPU, and how alike they are, -1..1, if it was judged."""

    step: int
    pictures: Tensor
    likeness: float | None


@dataclass(frozen=True)
class Previews:
    """Which previews are wanted.

    Attributes:
        every: one after each so many steps, and one after the last.
        judge: pictures (K, H, W, 3) → likeness, from which the best step is known; None judges nothing, and the last step counts as the best.
        show: called with every preview.
    """

    every: int
    judge: Callable[[Tensor], float] | None = None
    show: Callable[[Preview], None] = lambda preview: None

    def due(self, step: int, steps: int) -> bool:
        """Whether one is wanted after ``step``."""
        return step % self.every == 0 or step == steps


class Best:
    """The weights of the step that was most alike, on the CPU; of two that are equal, the later."""

    def __init__(self):
        self.weights: dict[str, Tensor] = {}  # empty until something was judged

    def consider(self, module: IdentityModule, progress: Progress, likeness: float) -> None:
        """Note the likeness of the step just done, and keep its weights if none was more alike."""
        if likeness >= max((value for _, value in progress.likenesses), default=likeness):
            self.weights = {name: p.detach().to("cpu", copy=True) for name, p in module.named_parameters() if p.requires_grad}
        progress.likenesses.append([progress.step, likeness])

    def restore(self, module: IdentityModule) -> None:
        """Give the module the best weights; without any it stays as it is."""
        parameters = dict(module.named_parameters())
        with torch.no_grad():
            for name, value in self.weights.items():
                parameters[name].copy_(value)


def best_step(progress: Progress) -> int:
    """The step whose weights :class:`Best` keeps; the last one where nothing was judged."""
    # The later of equals; pairs are in the order of their steps.
    return max(progress.likenesses, key=lambda judged: (judged[1], judged[0]), default=[progress.step])[0]


class PreviewPainter:
    """Draws the same picture again and again, with whatever the module has learned by then."""

    def __init__(self, backend: DiffusionBackend, count: int, shape: tuple[int, ...], seed: int, pictures: int = 1, template: str = TEMPLATE):
        """Args: count: pseudo-tokens, 0 where anybody is drawn; shape: (C, h, w) of the latents; pictures: K."""
        self._backend = backend
        self._prompt = tokenize_template(backend, template, count)
        self._bare = backend.tokenize(template.replace(PLACEHOLDER, ANYBODY), "", 0)
        self._empty = backend.tokenize("", "", 0)
        self._noise = torch.randn(pictures, *shape, generator=torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def latents(self, module: IdentityModule | None, start: float = 0.0) -> Tensor:
        """(K, C, h, w) by DDIM (arXiv 2010.02502, η = 0) with classifier-free guidance. Call it inside the backend's training mode.

        Args:
            module: who the person is; None for anybody.
            start: share of the sampling from which the person acts; before it anybody does.
        """
        backend = self._backend
        noise = self._noise.to(backend.device)
        encoded = lambda prompt: backend.encode_text(prompt_inputs(backend, [prompt], {}), [prompt.end]).rows([0] * len(noise))  # noqa: E731
        plain, anybody = encoded(self._empty), encoded(self._bare) if module is None or start > 0.0 else None
        # The unconditional half knows the person only through projections that were changed everywhere.
        unconditional = CrossAttentionEdit() if module is None else elsewhere(module, noise)
        prompts: list[Prompt] = [self._prompt]
        clean = torch.zeros_like(noise)
        for number, timestep in enumerate(torch.linspace(backend.timesteps - 1, 0, SAMPLER_STEPS + 1)[:-1].long().tolist()):
            timesteps = torch.full((len(noise),), timestep, dtype=torch.long, device=backend.device)
            if module is None or number < start * SAMPLER_STEPS:
                (condition, edit), unlike = (anybody, CrossAttentionEdit()), CrossAttentionEdit()
            else:
                (condition, edit), unlike = module.read(backend, prompts, [0] * len(noise), timesteps), unconditional
            wanted = backend.predict(clean, noise, timesteps, condition, edit)
            other = backend.predict(clean, noise, timesteps, plain, unlike).denoised
            guided = other + GUIDANCE * (wanted.denoised - other)
            # The noisy picture is signal · clean + sigma · noise and stays what it is: what the new clean one gains, the noise loses.
            noise = noise + wanted.snr.sqrt().view(-1, 1, 1, 1) * (clean - guided)
            clean = guided
        return clean


def paint(
    backend: DiffusionBackend, template: str, side: int, seed: int, module: IdentityModule | None = None, count: int = 0, start: float = 0.0,
) -> Tensor:
    """One picture (side, side, 3) float32 in 0..1 on the CPU of a backend that is in no training.

    Args:
        module, start: see :meth:`PreviewPainter.latents`. count: the module's pseudo-tokens, 0 without one.
    """
    with torch.inference_mode(False):
        painter = PreviewPainter(backend, count, (_CHANNELS, side // _CELL, side // _CELL), seed, template=template)
        with backend.training():
            latents = painter.latents(module, start)
        return backend.decode_latents(latents)[0]  # not in training mode: decoding moves models
