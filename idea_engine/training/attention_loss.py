"""The face-wise attention loss of SeFi-IDE (METHODS §2): the identity's words look where a face is, not all over the picture."""
from __future__ import annotations

from dataclasses import replace
from typing import Sequence

import torch
from torch import Tensor

from ..backends.attention_maps import AttentionMaps, grid_size, inside, map_blocks
from ..backends.base import CrossAttentionEdit, DiffusionBackend, Prompt, TextCondition
from ..backends.templates import prompt_inputs
from ..errors import TrainingError

TARGETS = ("face_word", "mask")
_WORD = "face"  # METHODS §2


class AttentionLoss:
    """Compares where the identity's tokens together look with a target, at the coarse grids of :func:`~.attention_maps.map_blocks`.

    Both targets give a loss without a unit, of the order of 1, averaged over the grids:

    - ``face_word``, the paper's: where the frozen model looks for 'face' when that word stands in the identity's places of the same prompt,
      at the same noisy picture. ``Σ (map − target)² / Σ target²``. It needs no face detector and one more network call without gradients.
    - ``mask``: the share of the attention that falls outside the face mask, in 0..1.
    """

    def __init__(self, backend: DiffusionBackend, target: str, prompts: Sequence[Prompt], masks: Tensor | None):
        """Args: prompts: all training prompts. masks: (P, h, w) in 0..1 for every latent, needed for ``mask`` only.

        Raises:
            TrainingError: masks are wanted, and there are none; or the target is of no known kind.
        """
        if target not in TARGETS:
            raise TrainingError(f"The attention target is '{target}', expected one of {', '.join(TARGETS)}.")
        if target == "mask" and masks is None:
            raise TrainingError(
                "The attention loss shall use face masks, but none are connected. Connect masks of Face Embed to masks of the Train node, or choose "
                "'face word' as its attention."
            )
        self.backend, self.target, self.prompts, self.masks = backend, target, prompts, masks
        self._references: dict[int, TextCondition] = {}

    def look(self, prompts: Sequence[int], pictures: Tensor, latents: Tensor, noise: Tensor, timesteps: Tensor) -> "Look":
        """Prepare the loss of one batch, before its prediction is asked for.

        Args:
            prompts, pictures: numbers of each sample's prompt and latent. latents, noise, timesteps: as ``predict`` gets them.
        """
        positions = torch.tensor([self.prompts[i].positions for i in prompts], device=latents.device)
        length = len(next(iter(self.prompts[0].ids.values())))
        scales, size = self.backend.block_scales, latents.shape[-2:]
        wanted = AttentionMaps.of_positions(positions, length)
        if self.target == "mask":
            masks = self.masks[pictures][:, None].to(latents)
            grids = [torch.nn.functional.adaptive_avg_pool2d(masks, grid_size(size, scales[block])) for block in map_blocks(scales)]
            return Look(self, wanted, grids, size)
        reference = AttentionMaps(wanted.columns)
        with torch.no_grad():
            context = torch.cat([self._reference(i).context for i in prompts])
            pooled = [self._reference(i).pooled for i in prompts]
            condition = TextCondition(context, None if pooled[0] is None else torch.cat(pooled))
            self.backend.predict(latents, noise, timesteps, condition, CrossAttentionEdit(maps=reference))
        return Look(self, wanted, reference.grids(size, scales), size)

    def _reference(self, prompt: int) -> TextCondition:
        """The prompt with the word in the identity's places; it never changes."""
        if prompt not in self._references:
            one = self.prompts[prompt]
            word = torch.tensor(self.backend.word_ids(_WORD)[:1] * len(one.positions), device=self.backend.device)
            rows = {key: self.backend.token_rows(key, word) for key in self.backend.family.encoders}
            self._references[prompt] = self.backend.encode_text(prompt_inputs(self.backend, [one], rows), [one.end])
        return self._references[prompt]


class Look:
    """One batch's loss: hand :attr:`maps` to the prediction, then ask for :meth:`losses`."""

    def __init__(self, loss: AttentionLoss, maps: AttentionMaps, target: Sequence[Tensor], size: Sequence[int]):
        self.maps, self._loss, self._target, self._size = maps, loss, target, size

    def losses(self) -> Tensor:
        """(B,), see :class:`AttentionLoss`."""
        grids = self.maps.grids(self._size, self._loss.backend.block_scales)
        return torch.stack([self._one(grid[:, 0], target[:, 0]) for grid, target in zip(grids, self._target)]).mean(0)

    def _one(self, found: Tensor, target: Tensor) -> Tensor:
        if self._loss.target == "mask":
            return 1 - inside(found, target)
        return (found - target).square().flatten(1).sum(1) / target.square().flatten(1).sum(1).clamp_min(1e-12)


@torch.no_grad()
def attention_inside(
    backend: DiffusionBackend, module, prompts: Sequence[Prompt], latents: Tensor, noise: Tensor, timesteps: Tensor, masks: Tensor
) -> Tensor:
    """How much of what the identity's tokens attend to lies inside a mask: the figure the loss is meant to raise.

    Args:
        module: an :class:`~idea_engine.methods.module.IdentityModule`.
        prompts, latents, noise, timesteps, masks: one of each per sample; masks (B, h, w) in 0..1 at the latents' size.

    Returns:
        (B,) in 0..1.
    """
    condition, edit = module.read(backend, prompts, range(len(prompts)), timesteps)
    positions = torch.tensor([prompt.positions for prompt in prompts], device=latents.device)
    maps = AttentionMaps.of_positions(positions, condition.context.shape[1])
    backend.predict(latents, noise, timesteps, condition, replace(edit, maps=maps))
    return inside(maps.picture(latents.shape[-2:], backend.block_scales)[:, 0], masks.to(latents))
