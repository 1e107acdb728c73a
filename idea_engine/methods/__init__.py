"""What can be learned about a person: every recipe by its name, and the module each one trains."""
from __future__ import annotations

from typing import Sequence

from ..errors import TrainingError
from ..identity.enhanced import EnhancedIdentity
from . import id_ea, sefi_ide
from .module import IdentityModule
from .recipe import Recipe

RECIPES = {**id_ea.RECIPES, **sefi_ide.RECIPES}


def build(enhanced: EnhancedIdentity, recipe: Recipe, blocks: Sequence[int]) -> IdentityModule:
    """The module that ``recipe`` trains; see :class:`~idea_engine.methods.module.IdentityMethod`.

    Raises:
        TrainingError: the recipe reads a face embedding, and there is none.
    """
    if enhanced.face is None and recipe.reads_face:
        raise TrainingError(
            f"The recipe {recipe.name} starts from a face embedding, but none is connected. Connect Face Embed to face of the ID Enhancer node, or "
            f"choose the recipe {sefi_ide.SEFI.name} in the Train node, which needs no face recognizer."
        )
    return (sefi_ide.SeFiIDE if recipe.stages else id_ea.IDEA)(enhanced, recipe, blocks)
