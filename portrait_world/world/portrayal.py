"""One shot of a person: everything about a portrait that is not the person, most of it promptable."""
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

SCENES = ("studio", "beach", "forest", "city", "mountains", "desert", "library", "space")
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "purple", "orange")
GARMENTS = ("shirt", "suit", "sweater")
EXPRESSIONS = ("neutral", "smiling", "sad", "surprised", "angry")
ACCESSORIES = ("none", "hat", "glasses", "headphones")
STYLES = ("photo", "sketch", "painting", "mono")

# What the attribute judge tells apart: field of Shot → its words, in the order of the judge's outputs.
ATTRIBUTES = {
    "scene": SCENES, "colour": COLOURS, "garment": GARMENTS,
    "expression": EXPRESSIONS, "accessory": ACCESSORIES, "style": STYLES,
}


@dataclass(frozen=True)
class Shot:
    """How a person is portrayed.

    Attributes:
        scene, colour, garment, expression, accessory, style: words of the tuples above; captions can name them.
        tilt: degrees in the picture plane.
        yaw: turn of the head, -1..1: moves the features across the face.
        scale, dx, dy: zoom about the bottom centre, and shift in widths of the frame.
        light, gain: brightness slope from left to right, and factor.
        seed: of everything else: background variant, crop, paper grain.
    """

    scene: str = "studio"
    colour: str = "blue"
    garment: str = "shirt"
    expression: str = "neutral"
    accessory: str = "none"
    style: str = "photo"
    tilt: float = 0.0
    yaw: float = 0.0
    scale: float = 1.0
    dx: float = 0.0
    dy: float = 0.0
    light: float = 0.0
    gain: float = 1.0
    seed: int = 0

    def with_(self, **changes) -> "Shot":
        """A copy with some fields changed."""
        return replace(self, **changes)

    def labels(self) -> list[int]:
        """The index of each attribute, in the order of ATTRIBUTES."""
        return [words.index(getattr(self, field)) for field, words in ATTRIBUTES.items()]


def sample_shot(rng: np.random.Generator) -> Shot:
    """A random shot: two thirds are photographs, a little under half have no accessory."""
    pick = lambda words: words[rng.integers(len(words))]
    return Shot(
        scene=pick(SCENES), colour=pick(COLOURS), garment=pick(GARMENTS), expression=pick(EXPRESSIONS),
        accessory=pick(ACCESSORIES) if rng.uniform() < 0.75 else "none",
        style=STYLES[rng.choice(4, p=[0.64, 0.12, 0.12, 0.12])],
        tilt=float(rng.normal() * 4), yaw=float(np.clip(rng.normal() * 0.45, -1, 1)),
        scale=float(rng.uniform(0.94, 1.05)), dx=float(rng.normal() * 0.012), dy=float(rng.normal() * 0.010),
        light=float(rng.uniform(-0.2, 0.2)), gain=float(rng.uniform(0.9, 1.08)), seed=int(rng.integers(1 << 30)),
    )


def photograph(rng: np.random.Generator) -> Shot:
    """A random shot in the style of a photograph: what a user would give as a reference."""
    return sample_shot(rng).with_(style="photo")
