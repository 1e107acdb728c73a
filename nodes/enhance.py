"""IDEnhancer: a face beside its textual anchor."""
from __future__ import annotations

from .sockets import CATEGORY, ENHANCED, FACE

NAMES = ("celebrities", "my list", "words")


class IDEnhancer:
    """Finds where an average name lands in this checkpoint's text encoder and puts the face beside it."""

    DESCRIPTION = (
        "Computes the textual anchor of the connected CLIP (where an average person's name lands after its text encoder) and joins it with "
        "the face. Feed the result to Train Identity, or directly to Apply ID Adapter as the untrained start."
    )
    CATEGORY = CATEGORY
    FUNCTION = "enhance"
    RETURN_TYPES = (ENHANCED,)
    RETURN_NAMES = ("enhanced",)
    OUTPUT_TOOLTIPS = ("The face and its textual anchor, for Train Identity or Apply ID Adapter.",)

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "clip": ("CLIP", {"tooltip": "The text encoder of the checkpoint you will train and generate with."}),
                "names": (list(NAMES), {"default": NAMES[0], "tooltip": (
                    "What the anchor is averaged from: the shipped celebrity names, your own list (one name per line in names_text), or a few "
                    "plain words such as 'human face' in names_text."
                )}),
            },
            "optional": {
                "face": (FACE, {"tooltip": "The person, from Face Embed. Only the recipe sefi of Train Identity can do without."}),
                "names_text": ("STRING", {"default": "", "multiline": True, "tooltip": "Your names, one per line, or your words. Unused with 'celebrities'."}),
                "enhancer_seed": ("INT", {"default": 0, "min": 0, "max": 2**31 - 1, "tooltip": "Seeds the enhancer's random start weights."}),
            },
        }

    def enhance(self, clip, names, face=None, names_text="", enhancer_seed=0):
        from ..idea_engine.types import EnhancedIdentity
        from .host.backend import TextBackend

        backend = TextBackend(clip)
        anchor = _anchor(backend, _chosen(names, names_text))
        if face is None:
            return (EnhancedIdentity(family=backend.family, face=None, anchor=anchor, seed=enhancer_seed),)
        return (
            EnhancedIdentity(
                family=backend.family, face=face.mean(), anchor=anchor, seed=enhancer_seed,
                recognizer=face.recognizer, licence=face.licence, masks=face.masks, photographs=face.photographs,
            ),
        )


def _chosen(names: str, text: str) -> list[str]:
    from ..idea_engine.anchors import celebrity_names, parse_names

    if names == "celebrities":
        return celebrity_names()
    return [" ".join(text.split())] if names == "words" and text.strip() else parse_names(text)


_anchors: dict = {}  # (text encoder, names) → anchor; a few kilobytes each


def _anchor(backend, names: list[str]):
    from contextlib import closing

    from ..idea_engine.anchors import compute_anchor

    key = (backend.text_hash, backend.clip.layer_idx, tuple(names))
    if key not in _anchors:
        with closing(backend):
            backend.load()
            _anchors[key] = compute_anchor(backend, names)
    return _anchors[key]
