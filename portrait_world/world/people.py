"""Who lives in the Portrait World: the parameters of a face, and the splits nobody crosses.

A person is a pure function of (split, index), so the same call gives the same person on every machine. Validation and
test people are never seen by anything that is trained; the ``many`` are seen by the ID-Enhancer alone.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

HAIR_STYLES = ("bald", "short", "parted", "bob", "long", "afro", "bun", "spiky")
HAIR_COLOURS = ("black", "brown", "blond", "red", "gray", "white")
EYE_COLOURS = ("brown", "blue", "green", "gray", "hazel")
BEARDS = ("none", "none", "none", "moustache", "beard", "goatee")  # half of the people have none

# The continuous traits of a face, each 0..1; geometry.py maps them to the unit square.
TRAITS = (
    "skin", "warmth", "face_width", "skull_height", "jaw_height", "jaw_shape", "taper",
    "eye_distance", "eye_size", "eye_opening", "eye_tilt", "iris_size",
    "brow_thickness", "brow_arch", "brow_height",
    "nose_length", "nose_width", "mouth_width", "mouth_height", "lip_fullness", "lip_redness",
    "hairline", "ear_size",
)

# A person depends on the split's place in this table, so new ones go last.
SPLITS = {"named": 360, "unnamed": 6000, "validation": 200, "test": 200, "many": 100_000}

# Both words of every name are single tokens of CLIP's vocabulary; each first name is shared by nine people and each
# last name by ten, as in life, so a name is only known by both its words.
FIRST_NAMES = (
    "anna ben clara david emma frank henry jack kate leo maria noah olga paul sam tina vera zoe alan beth "
    "carl dana eric hana ivan jane kurt lily nina oscar peter rita simon victor adam bella felix helen julia thomas"
).split()
LAST_NAMES = (
    "smith jones taylor wilson davis evans roberts wright thompson edwards hughes lewis clarke jackson turner harris "
    "cooper morris baker anderson mitchell phillips campbell kelly bennett morgan murphy gibson mason palmer holmes "
    "garcia lopez novak khan kim"
).split()


@dataclass(frozen=True)
class Person:
    """One face.

    Attributes:
        traits: trait name (TRAITS) → 0..1.
        hair, hair_colour, eye_colour, beard: words of the tuples above.
        hair_shift: (3,) RGB offset of the hair colour, in 0..255 steps.
        freckles: the seed of the freckles' places, or None for none.
    """

    traits: dict[str, float]
    hair: str
    hair_colour: str
    hair_shift: tuple[float, float, float]
    eye_colour: str
    beard: str
    freckles: int | None

    def between(self, trait: str, low: float, high: float) -> float:
        """The trait mapped linearly from 0..1 to low..high."""
        return low + (high - low) * self.traits[trait]


def person(split: str, index: int) -> Person:
    """The person number ``index`` of a split (see SPLITS).

    Raises:
        KeyError: no such split.
        IndexError: the split has fewer people.
    """
    if not 0 <= index < SPLITS[split]:
        raise IndexError(f"The split '{split}' has {SPLITS[split]} people; there is no number {index}.")
    rng = np.random.default_rng([tuple(SPLITS).index(split), index, 2507_11990])
    traits = {trait: float(rng.uniform()) for trait in TRAITS}
    return Person(
        traits=traits,
        hair=HAIR_STYLES[rng.integers(len(HAIR_STYLES))],
        hair_colour=HAIR_COLOURS[rng.integers(len(HAIR_COLOURS))],
        hair_shift=tuple(float(v) for v in rng.normal(size=3) * 12),
        eye_colour=EYE_COLOURS[rng.integers(len(EYE_COLOURS))],
        beard=BEARDS[rng.integers(len(BEARDS))],
        freckles=int(rng.integers(1 << 30)) if rng.uniform() < 0.25 else None,
    )


def name(index: int) -> str:
    """The two-word name of named person ``index``: 'anna smith'. No two people share both words."""
    first, round_ = index % len(FIRST_NAMES), index // len(FIRST_NAMES)
    return f"{FIRST_NAMES[first]} {LAST_NAMES[(first * 5 + round_ * 4) % len(LAST_NAMES)]}"


def names() -> list[str]:
    """All names, in the order of the named people."""
    return [name(index) for index in range(SPLITS["named"])]
