"""A method is data plus a small class; the training loop does not know its name."""
from __future__ import annotations

from typing import Protocol, Sequence

import torch
from torch import Tensor, nn

from ..backends.base import CrossAttentionEdit, DiffusionBackend, Prompt, TextCondition
from ..identity.enhanced import EnhancedIdentity
from ..identity.identity import Identity
from .recipe import Recipe


class IdentityModule(nn.Module):
    """Base of what a method trains. Parameters live in submodules named after their part (see :attr:`Recipe.trains`)."""

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Part name → its parameters, trained or not."""
        raise NotImplementedError

    def sizes(self) -> dict[str, list[float]]:
        """Part name → for each of its parameters how far a step may go in relation to the rate; parts that are missing count as 1."""
        return {}

    def hold(self) -> None:
        """Called after every step: bring back what went further than it may."""

    def condition(self, backend: DiffusionBackend, prompts: Sequence[Prompt], rows: Sequence[int]) -> TextCondition:
        """The text condition of ``prompts``, each encoded once, then picked by ``rows`` to one per picture."""
        raise NotImplementedError

    def edit(self, positions: Tensor) -> CrossAttentionEdit:
        """The cross-attention edit for a batch whose identity tokens stand at ``positions`` (B, n)."""
        raise NotImplementedError

    def read(
        self, backend: DiffusionBackend, prompts: Sequence[Prompt], rows: Sequence[int], timesteps: Tensor
    ) -> tuple[TextCondition, CrossAttentionEdit]:
        """All that cross-attention reads: picture b has the prompt ``prompts[rows[b]]`` and the timestep ``timesteps[b]``."""
        positions = torch.tensor([prompts[i].positions for i in rows], device=backend.device)
        return self.condition(backend, prompts, rows), self.edit(positions)

    def regularizer(self) -> Tensor:
        """Scalar added to the noise loss, already weighted."""
        raise NotImplementedError

    def identity(self, trigger: str, config: dict[str, object], text_hash: str) -> Identity:
        """The learned person as of now, on the CPU, rounded to the precision of the file."""
        raise NotImplementedError


class IdentityMethod(Protocol):
    """Makes the module that is trained."""

    def build(self, enhanced: EnhancedIdentity, recipe: Recipe, blocks: Sequence[int]) -> IdentityModule:
        """The module at its start: an exact no-op beside the pseudo-tokens.

        Args:
            blocks: c of every cross-attention block, in run order.
        """


def set_trainable(module: IdentityModule, recipe: Recipe) -> None:
    """Let exactly the recipe's parts require gradients."""
    for part, parameters in module.parts().items():
        for parameter in parameters:
            parameter.requires_grad_(part in recipe.trains)


def parameter_groups(module: IdentityModule, recipe: Recipe, rate: float) -> list[dict[str, object]]:
    """AdamW groups of the trained parts, each with its own learning rate."""
    groups, sizes = [], module.sizes() if recipe.relative else {}
    for part, parameters in module.parts().items():
        if part not in recipe.trains or not parameters:
            continue
        part_rate = rate * recipe.part_lr.get(part, 1.0)
        if part in sizes:
            groups += [{"params": [parameter], "lr": part_rate * size} for parameter, size in zip(parameters, sizes[part], strict=True)]
        else:
            groups.append({"params": parameters, "lr": part_rate})
    return groups
