"""What the artist may choose of a training."""
from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Sequence

from ..errors import TrainingError
from ..methods import RECIPES
from ..methods.recipe import Recipe
from ..methods.sefi_ide import with_attention, with_stages

_TEMPLATES_FILE = Path(__file__).parents[1] / "data" / "prompt_templates.txt"


def prompt_templates() -> tuple[str, ...]:
    """The shipped training prompts."""
    lines = _TEMPLATES_FILE.read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


@dataclass(frozen=True)
class TrainConfig:
    """What the artist may choose. 0 stands for the recipe's own value.

    Attributes:
        recipe: a name of :data:`~idea_engine.methods.RECIPES`.
        steps, batch, lr, stages: see :class:`~idea_engine.methods.recipe.Recipe`.
        attention: target of the attention loss, ``off``, or '' for the recipe's own.
        resolution: side of the training pictures in pixels, a multiple of 8.
        seed: of noise, timesteps, pictures and prompts.
        templates: training prompts with ``{tokens}``.
        captions: what else the photographs show, appended to every template: nothing, one text for all photographs, or one for each. What the
            prompt says need not be learned as a part of the person.
        micro_batch: pictures at a time; 0 tries the whole batch and halves it when memory runs out.
        checkpointing: recompute activations from the start; otherwise only when memory runs out.
        base_rate: what the recipe's own rate is multiplied by on this base model, see :mod:`idea_engine.judging.base_advice`; ``lr`` is taken as it is.
    """

    recipe: str = "balanced"
    trigger: str = "<anna>"
    steps: int = 0
    batch: int = 0
    lr: float = 0.0
    resolution: int = 512
    seed: int = 0
    templates: tuple[str, ...] = field(default_factory=prompt_templates)
    captions: tuple[str, ...] = ()
    micro_batch: int = 0
    checkpointing: bool = False
    stages: int = 0
    attention: str = ""
    base_rate: float = 1.0

    def checked_captions(self, photographs: int) -> tuple[str, ...]:
        """The captions.

        Raises:
            TrainingError: another number of captions than photographs.
        """
        if len(self.captions) not in (0, 1, photographs):
            raise TrainingError(
                f"There are {len(self.captions)} captions for {photographs} photographs, expected one line for all or one for each. Change caption in "
                "the Train node."
            )
        return self.captions

    def prompts(self, captions: Sequence[str]) -> list[str]:
        """Every template with the first caption, with the second, …; the bare templates where there is none."""
        return [f"{template} {caption}".rstrip() for caption in captions or ("",) for template in self.templates]

    def resolved(self) -> Recipe:
        """The recipe with the artist's values in place of its own."""
        recipe = RECIPES[self.recipe]
        recipe = replace(
            recipe, steps=self.steps or recipe.steps, batch=self.batch or recipe.batch, lr=self.lr or recipe.lr * self.base_rate,
            refining_lr=recipe.refining_lr * self.base_rate,
        )
        return with_attention(with_stages(recipe, self.stages), self.attention)

    def remarks(self) -> tuple[str, ...]:
        """What the artist should know of the rate: what another batch does, and what was advised for the base model."""
        made = [self.resolved().batch_effect(RECIPES[self.recipe].batch)]
        if self.base_rate != 1.0 and not self.lr:
            made.append(f"at {self.base_rate:g} times the recipe's rate, as a check of this base model advises")
        return tuple(one for one in made if one)
