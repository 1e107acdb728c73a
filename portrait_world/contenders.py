"""Who competes in the benchmark: one table, name → how a person is learned from photographs.

A method of the engine enters as its recipe; the baselines are the engine's own loop with only the tokens learning. Learning rates were chosen
on validation people (see docs/ablation.md); the test people are for the tables.
"""
from __future__ import annotations

from dataclasses import dataclass, field, replace

from idea_engine.methods.base import ATTENTION_WEIGHTS
from idea_engine.methods.id_ea import BALANCED, WORD_RATE


@dataclass(frozen=True)
class Contender:
    """One row of the table.

    Attributes:
        recipe: name of the engine's recipe it starts from; '' where nothing is learned.
        changes: fields of the recipe that differ.
        captioned: whether the user also said what each photograph shows beside the person.
        photos: how many photographs, where the row asks for another number than the benchmark; 0 for the benchmark's.
        judged_every: after how many steps previews are judged by the face pack's recognizer against the reference, the most alike step being
            kept; 0 for the last step.
        shows: where nothing is learned: ``photograph``, which FaceCLIP reads with every prompt, or ``name``, somebody whom the model knows by
            name: what the model itself makes of the prompts.
    """

    recipe: str
    changes: dict = field(default_factory=dict)
    captioned: bool = False
    photos: int = 0
    judged_every: int = 0
    shows: str = ""


def _part_lr(**factors: float) -> dict[str, float]:
    return {**BALANCED.part_lr, **factors}


# Only the tokens learn, with no regularisation: textual inversion. Both at the best of the rates .003, .006, .012 (and .025 from the anchor).
_TOKENS_ONLY = dict(trains=("tokens",), anchor_weight=0.0, batch=4, steps=100, lr=0.012)
_BOTH = ("tokens", "stages")
_OURS_IN_STAGES = (*BALANCED.trains, "stages")

CONTENDERS: dict[str, Contender] = {
    "base": Contender("", shows="name"),
    "textual-inversion": Contender("released", dict(_TOKENS_ONLY, start="person")),
    "textual-inversion-25": Contender("released", dict(_TOKENS_ONLY, start="person", steps=25)),
    # At the rate it is usually run with: the example of diffusers moves SD's rows, of size .0125 (norm .4, METHODS §1.2), by 5e-4 for each of 4 pictures;
    # this world's 'person' has size .045.
    "textual-inversion-usual": Contender("released", dict(_TOKENS_ONLY, start="person", steps=800, lr=0.0018)),
    "cross-init": Contender("released", _TOKENS_ONLY),
    "released": Contender("released"),
    "paper": Contender("paper"),
    "fast": Contender("fast"),
    "balanced": Contender("balanced"),
    "best": Contender("best"),
    # SeFi-IDE's two ideas on cross initialisation, at its steps and rate, alone and together; and on our default.
    "sefi-attention": Contender("sefi", dict(_TOKENS_ONLY, stages=0)),
    "sefi-attention-mask": Contender("sefi", dict(_TOKENS_ONLY, stages=0, attention_target="mask", attention_weight=ATTENTION_WEIGHTS["mask"])),
    "sefi-stages": Contender("sefi", dict(_TOKENS_ONLY, trains=_BOTH, attention_weight=0.0)),
    "sefi-both": Contender("sefi", dict(_TOKENS_ONLY, trains=_BOTH)),
    "sefi": Contender("sefi"),
    "balanced-stages": Contender("balanced", dict(trains=_OURS_IN_STAGES, stages=5, part_lr=_part_lr(stages=WORD_RATE))),
    "balanced-stages-no-attention": Contender("balanced", dict(
        trains=_OURS_IN_STAGES, stages=5, part_lr=_part_lr(stages=WORD_RATE), attention_weight=0.0,
    )),
    "faceclip": Contender("", shows="photograph"),
}
_NO_ENDING = dict(trains=("tokens", "key_value"))
# What each part of the default is worth: taken away, put back, or exchanged.
ABLATION: dict[str, Contender] = {
    "balanced-no-attention": Contender("balanced", dict(attention_weight=0.0)),
    "balanced-no-mask": Contender("balanced", dict(face_share=0.0)),
    "balanced-no-expressions": Contender("balanced", dict(reads_expressions=False)),
    "balanced-captioned": Contender("balanced", captioned=True),
    "balanced-tokens": Contender("balanced", dict(trains=("tokens",))),
    "balanced-no-ending": Contender("balanced", _NO_ENDING),
    "balanced-no-key-value": Contender("balanced", dict(trains=("tokens", "ending"))),
    "balanced-through-unet": Contender("balanced", dict(gradient_through="unet")),
    "balanced-whole-schedule": Contender("balanced", dict(timestep_span=None)),
    "balanced-face-word": Contender("balanced", dict(attention_target="face_word", attention_weight=ATTENTION_WEIGHTS["face_word"])),
    "balanced-low-rank": Contender("balanced", dict(key_value_rank=8, part_lr=_part_lr(key_value=0.25))),
    "balanced-adapter": Contender("balanced", dict(trains=(*BALANCED.trains, "adapter", "gate"), part_lr=_part_lr(adapter=0.05))),
    "balanced-enhancer": Contender("balanced", dict(
        trains=(*BALANCED.trains, "enhancer"), key_value_rank=8, part_lr=_part_lr(enhancer=0.05, key_value=0.25),
    )),
    # An average name, as the encoder gives it, is twenty times as large as a word's row: it moves by smaller shares.
    "balanced-anchor-start": Contender("balanced", dict(start="anchor", part_lr=_part_lr(tokens=1.0))),
    "balanced-names-covariance": Contender("balanced", dict(start="anchor", part_lr=_part_lr(tokens=1.0), covariance="names", anchor_weight=1e-2)),
    "balanced-min-snr": Contender("balanced", dict(snr_ceiling=5.0)),
    "balanced-constant-rate": Contender("balanced", dict(decay=False, warmup=0)),
    "balanced-four-photos": Contender("balanced", photos=4),
    "balanced-early-stopping": Contender("balanced", judged_every=8),
    # The prior holds what acts on every prompt, which of all recipes only the paper's does; at the length of our default, for its own takes sixteen times that.
    "paper-short": Contender("paper", dict(steps=40, batch=4)),
    "paper-short-prior": Contender("paper", dict(steps=40, batch=4, prior_weight=1.0)),
    "untrained": Contender("balanced", dict(steps=1, lr=0.0)),
}
# The same of the default without its ending, which was the default before.
ABLATION |= {
    "no-ending-no-attention": Contender("balanced", dict(_NO_ENDING, attention_weight=0.0)),
    "no-ending-no-mask": Contender("balanced", dict(_NO_ENDING, face_share=0.0)),
    "no-ending-through-unet": Contender("balanced", dict(_NO_ENDING, gradient_through="unet")),
    "no-ending-whole-schedule": Contender("balanced", dict(_NO_ENDING, timestep_span=None)),
    "no-ending-stages": Contender("balanced", dict(trains=("tokens", "key_value", "stages"), stages=5, part_lr=_part_lr(stages=WORD_RATE))),
}
CONTENDERS |= ABLATION


def recipe_of(contender: Contender, steps: int = 0):
    """The engine's recipe with the contender's changes, and other steps when asked."""
    from idea_engine.methods import RECIPES

    recipe = replace(RECIPES[contender.recipe], **contender.changes)
    return replace(recipe, steps=steps) if steps else recipe
