"""Who competes in the benchmark: one table, name → how a person is learned from photographs.

A method of the engine enters as its recipe; the baselines are the engine's own loop with only the tokens learning. Learning rates were chosen
on validation people (see docs/ablation.md); the test people are for the tables.
"""
from __future__ import annotations

from dataclasses import dataclass, field, replace

from idea_engine.methods.id_ea import BALANCED, WORD_RATE
from idea_engine.methods.recipe import ATTENTION_WEIGHTS


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
        starts_at: from which share of the sampling on the person is in the prompt, as Apply ID Adapter's start_at.
        enhanced: whether training begins at the identity that the ID-Enhancer, learned from many people, reads in the photographs.
        shows: where nothing is learned: ``photograph``, which FaceCLIP reads with every prompt, or ``name``, somebody whom the model knows by
            name: what the model itself makes of the prompts.
    """

    recipe: str
    changes: dict = field(default_factory=dict)
    captioned: bool = False
    photos: int = 0
    judged_every: int = 0
    starts_at: float = 0.0
    enhanced: bool = False
    shows: str = ""


def _part_lr(**factors: float) -> dict[str, float]:
    return {**BALANCED.part_lr, **factors}


# Only the tokens learn, with no regularisation: from a plain word textual inversion, from the anchor cross initialisation. Both at the best
# of the rates .003, .006, .012 (and .025 from the anchor).
_TOKENS_ONLY = dict(trains=("tokens",), anchor_weight=0.0, batch=4, steps=100, lr=0.012)
_TEXTUAL_INVERSION = dict(_TOKENS_ONLY, start="person")
_BOTH = ("tokens", "stages")
_OURS_IN_STAGES = (*BALANCED.trains, "stages")

CONTENDERS: dict[str, Contender] = {
    "base": Contender("", shows="name"),
    "textual-inversion": Contender("released", _TEXTUAL_INVERSION),
    "textual-inversion-25": Contender("released", dict(_TEXTUAL_INVERSION, steps=25)),
    # At the rate it is usually run with: the example of diffusers moves SD's rows, of size .0125 (norm .4, METHODS §1.2), by 5e-4 for each of 4 pictures;
    # this world's 'person' has size .045.
    "textual-inversion-usual": Contender("released", dict(_TEXTUAL_INVERSION, steps=800, lr=0.0018)),
    "cross-init": Contender("released", _TOKENS_ONLY),
    "released": Contender("released"),
    "paper": Contender("paper"),
    "fast": Contender("fast"),
    "balanced": Contender("balanced"),
    "best": Contender("best"),
    "balanced-face-only": Contender("balanced", dict(hair_share=0.0)),
    # The scene is laid out first, then the person comes in.
    "balanced-from-10": Contender("balanced", starts_at=0.1),
    "balanced-from-20": Contender("balanced", starts_at=0.2),
    "textual-inversion-from-10": Contender("released", _TEXTUAL_INVERSION, starts_at=0.1),
    "best-from-10": Contender("best", starts_at=0.1),
    "best-from-20": Contender("best", starts_at=0.2),
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
    # From the identity that the ID-Enhancer gives at once: as it is, and refined.
    "enhancer-0": Contender("balanced", dict(steps=1, refining_lr=1e-12), enhanced=True),
    "enhancer-5": Contender("fast", dict(steps=5), enhanced=True),
    "enhancer-10": Contender("fast", dict(steps=10), enhanced=True),
    "enhancer-20": Contender("fast", enhanced=True),
    "enhancer-balanced": Contender("balanced", enhanced=True),
    "enhancer-best": Contender("best", enhanced=True),
}
_NO_ENDING = dict(trains=("tokens", "key_value"))


def _half(**changes) -> dict:
    """Changes of the default at half its steps, at which its parts are told apart in half the time."""
    return dict(changes, steps=BALANCED.steps // 2)


# What each part of the default is worth: taken away, put back, or exchanged.
ABLATION: dict[str, Contender] = {
    "half": Contender("balanced", _half()),
    "half-no-attention": Contender("balanced", _half(attention_weight=0.0)),
    "half-no-mask": Contender("balanced", _half(face_share=0.0)),
    "half-no-expressions": Contender("balanced", _half(reads_expressions=False)),
    "half-captioned": Contender("balanced", _half(), captioned=True),
    "half-tokens": Contender("balanced", _half(trains=("tokens",))),
    "half-no-ending": Contender("balanced", _half(**_NO_ENDING)),
    "half-no-key-value": Contender("balanced", _half(trains=("tokens", "ending"))),
    "half-through-unet": Contender("balanced", _half(gradient_through="unet")),
    "half-whole-schedule": Contender("balanced", _half(timestep_span=None)),
    "half-face-word": Contender("balanced", _half(attention_target="face_word", attention_weight=ATTENTION_WEIGHTS["face_word"])),
    "half-low-rank": Contender("balanced", _half(key_value_rank=8, part_lr=_part_lr(key_value=0.25))),
    "half-adapter": Contender("balanced", _half(trains=(*BALANCED.trains, "adapter", "gate"), part_lr=_part_lr(adapter=0.05))),
    "half-enhancer": Contender("balanced", _half(
        trains=(*BALANCED.trains, "enhancer"), key_value_rank=8, part_lr=_part_lr(enhancer=0.05, key_value=0.25),
    )),
    # An average name, as the encoder gives it, is twenty times as large as a word's row: it moves by smaller shares.
    "half-anchor-start": Contender("balanced", _half(start="anchor", part_lr=_part_lr(tokens=1.0))),
    "half-names-covariance": Contender("balanced", _half(start="anchor", part_lr=_part_lr(tokens=1.0), covariance="names", anchor_weight=1e-2)),
    "half-min-snr": Contender("balanced", _half(snr_ceiling=5.0)),
    "half-constant-rate": Contender("balanced", _half(decay=False, warmup=0)),
    "half-four-photos": Contender("balanced", _half(), photos=4),
    "half-early-stopping": Contender("balanced", _half(), judged_every=8),
    # The same of the default without its ending, which was the default before.
    "half-no-ending-no-attention": Contender("balanced", _half(**_NO_ENDING, attention_weight=0.0)),
    "half-no-ending-no-mask": Contender("balanced", _half(**_NO_ENDING, face_share=0.0)),
    "half-no-ending-through-unet": Contender("balanced", _half(**_NO_ENDING, gradient_through="unet")),
    "half-no-ending-whole-schedule": Contender("balanced", _half(**_NO_ENDING, timestep_span=None)),
    "half-no-ending-stages": Contender("balanced", _half(
        trains=("tokens", "key_value", "stages"), stages=5, part_lr=_part_lr(stages=WORD_RATE),
    )),
    # The prior holds what acts on every prompt, which of all recipes only the paper's does; at the length of the rows above, for its own takes
    # sixteen times that.
    "paper-short": Contender("paper", dict(steps=40, batch=4)),
    "paper-short-prior": Contender("paper", dict(steps=40, batch=4, prior_weight=1.0)),
    "untrained": Contender("balanced", dict(steps=1, lr=0.0)),
}
CONTENDERS |= ABLATION


def recipe_of(contender: Contender, steps: int = 0):
    """The engine's recipe with the contender's changes, and other steps when asked."""
    from idea_engine.methods import RECIPES

    recipe = replace(RECIPES[contender.recipe], **contender.changes)
    return replace(recipe, steps=steps) if steps else recipe
