"""Face packs for the command line."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Sequence

from torch import Tensor

from idea_engine.errors import FaceModelError
from idea_engine.faces.embed import CHOICES, PhotoFaces
from idea_engine.faces.execution_provider import PROVIDERS
from idea_engine.faces.pack import DEMO_DETECTION_SIZE
from idea_engine.files.foreign_text import shown


def face_arguments(parser: argparse.ArgumentParser) -> None:
    """``--face-pack``, ``--provider``, ``--detection-size``, ``--choose``, ``--index``."""
    group = parser.add_argument_group("the face")
    group.add_argument("--face-pack", metavar="DIR", help="a folder with an insightface pack, such as buffalo_l; with --model demo its own pack is the default")
    group.add_argument("--provider", choices=PROVIDERS, default="auto", help="where the face models run (default: the fastest that works)")
    group.add_argument("--detection-size", type=int, default=0, metavar="PIXELS", help="photographs are fitted to this before faces are looked for (default 640)")
    group.add_argument("--choose", choices=CHOICES, default="largest", help="which face of a photograph is meant (default: the largest)")
    group.add_argument("--index", type=int, default=0, metavar="N", help="its number from 0, for --choose 'left to right' and 'index'")


def open_pack(folder: str | None, options: argparse.Namespace, demo: bool = False, option: str = "--face-pack"):
    """The :class:`~idea_engine.faces.insightface_encoder.InsightFaceEncoder` of a folder.

    Args:
        demo: take the Portrait World's own pack when there is no folder.
        option: the name of the option, for the message.

    Raises:
        FaceModelError: no folder is given, or no usable pack is in it.
    """
    from idea_engine.faces.insightface_encoder import load_face_model

    size = options.detection_size or 640
    if folder is None:
        if not demo:
            raise FaceModelError(f"No face pack is given. Name a folder with an insightface pack, such as buffalo_l, with {option}.")
        from portrait_world import assets

        folder, size = str(assets.FACE_PACK), options.detection_size or DEMO_DETECTION_SIZE
    if not Path(folder).is_dir():
        raise FaceModelError(f"{folder} is not a folder. Name a folder with an insightface pack, such as buffalo_l, with {option}.")
    return load_face_model(folder, options.provider, size)


def describe_faces(names: Sequence[str], photos: Sequence[Tensor], found: Sequence[PhotoFaces]) -> list[str]:
    """A line per photograph and per face in it."""
    lines = []
    for name, photo, seen in zip(names, photos, found):
        lines.append(f"{shown(name)}  {photo.shape[1]} × {photo.shape[0]}, {len(seen.faces) or 'no'} face{'' if len(seen.faces) == 1 else 's'}")
        for number, face in enumerate(seen.faces):
            left, top, right, bottom = (round(float(edge)) for edge in face.box)
            mark = "  ← this one" if number == seen.chosen else ""
            lines.append(f"  {number}: {right - left} × {bottom - top} px at ({left}, {top}), certain to {face.score:.2f}{mark}")
    return lines
