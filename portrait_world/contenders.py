"""Who competes in the benchmark: one table, name → how a person is learned from photographs.

A method of the engine enters as its recipe; the two baselines are the engine's own loop with only the tokens learning.
"""
from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Contender:
    """One row of the table.

    Attributes:
        recipe: name of the engine's recipe it starts from.
        start: where the pseudo-tokens begin: ``anchor`` (cross initialisation: the names' average after the text encoder),
            ``word`` (the input embedding of a word, as plain textual inversion does); or nothing is learned: ``photograph`` (FaceCLIP
            reads it with every prompt), ``name`` (somebody the model knows by name: what the model itself makes of the prompts).
        changes: fields of the recipe that differ.
        captioned: whether the user also said what each photograph shows beside the person.
        photos: how many photographs, where the row asks for another number than the benchmark; 0 for the benchmark's.
    """

    recipe: str
    start: str = "anchor"
    changes: dict = field(default_factory=dict)
    captioned: bool = False
    photos: int = 0

    @property
    def learns(self) -> bool:
        """Whether anything is trained for a person."""
        return self.start in ("anchor", "word")


# The baselines' learning rates are placeholders: the sweep on validation people waits for a trained denoiser.
CONTENDERS: dict[str, Contender] = {
    "textual-inversion": Contender("released", "word", dict(
        name="textual-inversion", trains=("tokens",), anchor_weight=0.0, lr=0.002, batch=4, steps=200,
    )),
    "cross-init": Contender("released", "anchor", dict(
        name="cross-init", trains=("tokens",), anchor_weight=1e-4, lr=0.01, batch=4, steps=200,
    )),
    "id-ea-fast": Contender("fast"),
    "id-ea-released": Contender("released"),
    "id-ea-paper": Contender("paper"),
    # SeFi-IDE's two ideas, alone and together, on textual inversion and on ID-EA.
    "sefi-attention": Contender("sefi", "anchor", dict(name="sefi-attention", trains=("tokens",), stages=0)),
    "sefi-stages": Contender("sefi", "anchor", dict(name="sefi-stages", attention_weight=0.0)),
    "sefi": Contender("sefi"),
    "sefi-mask": Contender("sefi", "anchor", dict(name="sefi-mask", attention_target="mask")),
    "id-ea-fast-sefi": Contender("fast", "anchor", dict(
        name="id-ea-fast-sefi", trains=("tokens", "adapter", "gate", "key_value", "stages"), stages=5, attention_weight=0.03,
    )),
    "faceclip": Contender("", "photograph"),
    "base": Contender("", "name"),
    "untrained": Contender("fast", "anchor", dict(name="untrained", steps=1, lr=0.0)),
}


def recipe_of(contender: Contender, steps: int = 0):
    """The engine's recipe with the contender's changes, and other steps when asked."""
    from idea_engine.methods import RECIPES

    recipe = replace(RECIPES[contender.recipe], **contender.changes)
    return replace(recipe, steps=steps) if steps else recipe


def starting_point(contender: Contender, backend, anchor, word: str = "person"):
    """The IDAnchor the contender's tokens start from.

    Args:
        backend: the engine's diffusion backend.
        anchor: the IDAnchor of the world's names.
        word: for ``word`` starts.
    """
    import torch

    if contender.start == "anchor":
        return anchor
    ids = torch.tensor(backend.word_ids(word)[:1] * len(anchor.names_used))
    return replace(anchor, rows={key: backend.token_rows(key, ids).float().cpu() for key in backend.family.encoders})
