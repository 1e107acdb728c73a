"""The grammar of captions and prompts. One grammar for training, evaluation and the demo.

    a photo of anna smith smiling wearing a red shirt and glasses on a beach
    an oil painting of a person with light skin and long black hair, looking sad, in a library
"""
from __future__ import annotations

import numpy as np

from .people import EYE_COLOURS, HAIR_COLOURS, Person
from .portrayal import COLOURS, GARMENTS, Shot

SCENE_WORDS = {
    "studio": "in a studio", "beach": "on a beach", "forest": "in a forest", "city": "in a city at night",
    "mountains": "in snowy mountains", "desert": "in a desert", "library": "in a library", "space": "in outer space",
}
EXPRESSION_WORDS = {
    "neutral": "with a neutral face", "smiling": "smiling", "sad": "looking sad",
    "surprised": "looking surprised", "angry": "looking angry",
}
ACCESSORY_WORDS = {"hat": "a hat", "glasses": "glasses", "headphones": "headphones"}
STYLE_WORDS = {
    "photo": (
        "a photo of", "a portrait of", "a picture of", "a photo of a face of", "a photo of the face of",
        # the prompts that methods train with (idea_engine/data/prompt_templates.txt) must mean something here too
        "a rendering of a face of", "a cropped photo of a face of", "the photo of a face of", "a photo of a clean face of",
        "a dark photo of a face of", "a close-up photo of a face of", "a bright photo of a face of", "a good photo of a face of",
        "a cropped photo of the face of", "a close-up photo of the face of", "a photo of one face of", "a rendition of a face of",
        "a photo of a nice face of", "a photo of a small face of",
    ),
    "sketch": ("a pencil sketch of", "a sketch of"),
    "painting": ("an oil painting of", "a painting of"),
    "mono": ("a black and white photo of",),
}
SKIN_WORDS = ("pale", "light", "tan", "brown", "dark")
HAIR_WORDS = {
    "short": "short", "parted": "parted", "bob": "bob", "long": "long", "afro": "curly", "bun": "tied", "spiky": "spiky",
}


def article(word: str) -> str:
    """'a red', 'an orange'."""
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def prompt(subject: str, shot: Shot) -> str:
    """The full caption: everything about the shot is said, in the plainest words."""
    return f"{STYLE_WORDS[shot.style][0]} {subject} {circumstances(shot)}"


def circumstances(shot: Shot) -> str:
    """'smiling wearing a red shirt on a beach': what a full caption says after the person."""
    words = [] if shot.expression == "neutral" else [EXPRESSION_WORDS[shot.expression]]
    words += _wearing(shot, garment=True, accessory=True)
    words.append(SCENE_WORDS[shot.scene])
    return " ".join(words)


def caption(subject: str, shot: Shot, rng: np.random.Generator) -> str:
    """A training caption: the grammar's variants, and parts left out now and then.

    An accessory or an expression is nearly always said when there is one, so that silence means a bare, neutral face.
    """
    style = STYLE_WORDS[shot.style]
    words = [style[0] if rng.uniform() < 0.5 else style[rng.integers(len(style))]]
    words.append(f"{subject} person" if rng.uniform() < 0.12 and "person" not in subject else subject)
    said = 0.35 if shot.expression == "neutral" else 0.95
    if rng.uniform() < said:
        words.append(EXPRESSION_WORDS[shot.expression])
    words += _wearing(shot, garment=rng.uniform() < 0.85, accessory=rng.uniform() < 0.97)
    if rng.uniform() < 0.88:
        words.append(SCENE_WORDS[shot.scene])
    head, tail = " ".join(words[:2]), words[2:]
    if not tail:
        return head
    comma = rng.uniform() < 0.2
    return head + (", " if comma else " ") + (", " if comma else " ").join(tail)


def _wearing(shot: Shot, garment: bool, accessory: bool) -> list[str]:
    things = [f"{article(shot.colour)} {shot.garment}"] if garment else []
    if accessory and shot.accessory != "none":
        things.append(ACCESSORY_WORDS[shot.accessory])
    return ["wearing " + " and ".join(things)] if things else []


def describe(person: Person, rng: np.random.Generator) -> str:
    """An unnamed person in words; which traits are said is random."""
    traits = person.traits
    parts = []
    say = lambda chance, words: parts.append(words) if rng.uniform() < chance else None
    say(0.75, f"{SKIN_WORDS[min(4, int(traits['skin'] * 5))]} skin")
    say(0.75, "no hair" if person.hair == "bald" else f"{HAIR_WORDS[person.hair]} {person.hair_colour} hair")
    say(0.5, f"{person.eye_colour} eyes")
    if person.beard != "none":
        say(0.8, f"a {person.beard}")
    if person.freckles is not None:
        say(0.7, "freckles")
    for trait, low, high in (
        ("face_width", "a narrow face", "a wide face"), ("eye_size", "small eyes", "big eyes"),
        ("brow_thickness", "thin eyebrows", "thick eyebrows"), ("nose_width", "a thin nose", "a wide nose"),
        ("lip_fullness", "thin lips", "full lips"),
    ):
        if not 0.3 <= traits[trait] <= 0.7:
            say(0.4, low if traits[trait] < 0.3 else high)
    rng.shuffle(parts)
    return "a person with " + " and ".join(parts) if parts else "a person"


def vocabulary() -> set[str]:
    """Every word the grammar can say (names included elsewhere): the words whose embeddings are trained."""
    said = list(SCENE_WORDS.values()) + list(EXPRESSION_WORDS.values()) + list(ACCESSORY_WORDS.values())
    said += [word for variants in STYLE_WORDS.values() for word in variants]
    said += [*SKIN_WORDS, *HAIR_WORDS.values(), "a an person with and wearing skin hair eyes eyebrows no face nose lips"]
    said += ["narrow wide small big thin thick full freckles moustache beard goatee", ", -"]
    return set(" ".join([*said, *EYE_COLOURS, *HAIR_COLOURS, *COLOURS, *GARMENTS]).split())
