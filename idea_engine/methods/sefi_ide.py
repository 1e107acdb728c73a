"""SeFi-IDE (arXiv 2402.00631): an identity with other pseudo-tokens in each stage of the noise schedule, for keys and for values."""
from __future__ import annotations

from dataclasses import replace
from typing import Sequence

import torch
from torch import Tensor, nn

from ..backends.base import CrossAttentionEdit, DiffusionBackend, Prompt, TextCondition
from ..backends.noise_stages import stage_of
from ..identity.enhanced import EnhancedIdentity
from ..identity.identity import Identity, StageTokens
from ..identity.operations import rounded
from .id_ea import IDEA
from .recipe import ATTENTION_WEIGHTS, Recipe

STAGES = 5  # METHODS §2
# Textual inversion from the names' anchor, with the paper's two ideas; nothing reads a face embedding. Rate and weight are our own.
SEFI = Recipe(
    name="sefi", trains=("tokens", "stages"), steps=320, batch=8, lr=0.0015, part_lr={}, anchor_weight=0.0, stages=STAGES,
    attention_weight=ATTENTION_WEIGHTS["face_word"],
)
RECIPES = {SEFI.name: SEFI}


def with_stages(recipe: Recipe, stages: int) -> Recipe:
    """Any recipe with the noise schedule in ``stages`` stages; 0 leaves the recipe's own."""
    if not stages:
        return recipe
    trains = recipe.trains if "stages" in recipe.trains else (*recipe.trains, "stages")
    return replace(recipe, stages=stages, trains=trains)


def with_attention(recipe: Recipe, target: str) -> Recipe:
    """Any recipe with the attention loss towards ``target``, without it (``off``), or as it is ('')."""
    if target in ("", "off"):
        return replace(recipe, attention_weight=0.0) if target else recipe
    if target == recipe.attention_target and recipe.attention_weight:
        return recipe
    return replace(recipe, attention_target=target, attention_weight=ATTENTION_WEIGHTS.get(target, 1.0))  # AttentionLoss refuses others


class SeFiIDE(IDEA):
    """Everything :class:`IDEA` can learn, in stages.

    Every stage's vectors are ``tokens`` plus an offset of their own, all offsets starting at 0: cross initialisation for every one. Each step
    thus moves what the stages have in common, and a fifth of them what tells one apart, so five stages do not need five times the steps.

    The file's plain tokens are the mean of all 2·S vectors: of all single vectors the nearest to them, in squares. What the rest of a prompt
    reads of the person is encoded with that mean, here as in use.
    """

    def __init__(self, enhanced: EnhancedIdentity, recipe: Recipe, blocks: Sequence[int]):
        super().__init__(enhanced, recipe, blocks)
        # Stage, keys and values, token, width.
        self.offsets = nn.ParameterDict({key: torch.zeros(recipe.stages, 2, *rows.shape) for key, rows in self.tokens.items()})

    def parts(self) -> dict[str, list[nn.Parameter]]:
        return {**super().parts(), "stages": self._by_encoder(self.offsets)}

    def sizes(self) -> dict[str, list[float]]:
        sizes = super().sizes()
        return {**sizes, "stages": sizes["tokens"]}

    def single(self) -> dict[str, Tensor]:
        """Encoder key → (n, w): the best single approximation."""
        return {key: rows + self.offsets[key].mean((0, 1)) for key, rows in self.tokens.items()}

    def staged(self) -> dict[str, Tensor]:
        """Encoder key → (S, 2, n, w): the tokens of every stage for keys and for values."""
        return {key: rows + self.offsets[key] for key, rows in self.tokens.items()}

    def anchored(self) -> dict[str, Tensor]:
        return {key: rows.flatten(0, 1) for key, rows in self.staged().items()}

    def condition(self, backend: DiffusionBackend, prompts: Sequence[Prompt], rows: Sequence[int]) -> TextCondition:
        return self.encode(backend, prompts, self.single()).rows(rows)

    def read(
        self, backend: DiffusionBackend, prompts: Sequence[Prompt], rows: Sequence[int], timesteps: Tensor
    ) -> tuple[TextCondition, CrossAttentionEdit]:
        stages = stage_of(timesteps, self.recipe.stages, backend.timesteps).tolist()
        pairs = sorted(set(zip(rows, stages)))  # a prompt at a stage is encoded once, for keys and for values
        single, staged = self.single(), self.staged()
        # In one go: every prompt plain, then every pair as keys, then every pair as values.
        tokens = {
            key: torch.cat([
                plain.expand(len(prompts), -1, -1), *(staged[key][[stage for _, stage in pairs], kind] for kind in (0, 1))
            ])
            for key, plain in single.items()
        }
        whole = self.encode(backend, [*prompts, *(prompts[row] for row, _ in pairs), *(prompts[row] for row, _ in pairs)], tokens)
        positions = torch.tensor([prompts[row].positions for row in rows], device=whole.context.device)
        edit = self.edit(positions)
        own = []
        for start in (len(prompts), len(prompts) + len(pairs)):
            contexts = whole.rows([start + pairs.index(pair) for pair in zip(rows, stages)]).context
            own.append(contexts.gather(1, positions[:, :, None].expand(-1, -1, contexts.shape[-1])))
        return whole.rows(rows), replace(edit, positions=positions, key_rows=own[0], value_rows=own[1])

    @torch.no_grad()
    def identity(self, trigger: str, config: dict[str, object], text_hash: str) -> Identity:
        staged = self.staged()
        stages = tuple(
            StageTokens(*({key: rows[stage, kind] for key, rows in staged.items()} for kind in (0, 1))) for stage in range(self.recipe.stages)
        )
        return rounded(replace(super().identity(trigger, config, text_hash), tokens=self.single(), stages=stages))
