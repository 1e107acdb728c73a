"""The Portrait World's own ID-Enhancer: photographs of a drawn face become an identity at once. Made by ``train/enhancer.py``."""
from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from . import assets

PATH = assets.FOLDER / "enhancer.safetensors"


@lru_cache(maxsize=2)
def opened(path: Path = PATH):
    """The shipped :class:`~idea_engine.enhancer.file.EnhancerFile`, or another, opened once."""
    from idea_engine.enhancer.file import load_enhancer

    return load_enhancer(path)


def person_at_once(backend, face, anchor):
    """The :class:`~idea_engine.identity.identity.Identity` that the shipped enhancer reads in a FaceEmbedding, with nothing trained."""
    from idea_engine.enhancer.person import person_at_once

    return person_at_once(opened(), backend, face, anchor)
