"""Which files are photographs, and pictures to files."""
from __future__ import annotations

import io
from pathlib import Path
from typing import Mapping, Sequence

import torch
from torch import Tensor

from idea_engine.errors import BadImageError
from idea_engine.files.atomic_write import atomic_write
from idea_engine.files.pictures import SUFFIXES


def photo_files(paths: Sequence[str | Path]) -> list[Path]:
    """Files as given; of folders, the pictures directly in them, by name.

    Raises:
        BadImageError: a path is not there, or a folder holds no picture.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if is_picture(file))
            if not inside:
                raise BadImageError(f"The folder {path} holds no picture; expected files that end in {', '.join(SUFFIXES)}.")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise BadImageError(f"There is no photograph {path}.")
    return found


def is_picture(path: Path) -> bool:
    """Whether a file looks like a picture by its ending; hidden files do not count."""
    return path.is_file() and path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def write_picture(image, path: Path, notes: Mapping[str, str] | None = None) -> Path:
    """A PIL picture or an (H, W, 3) tensor in 0..1 as PNG, with ``notes`` in its text chunks."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    if isinstance(image, Tensor):
        image = Image.fromarray((image.clamp(0, 1) * 255).round().to("cpu", torch.uint8).numpy())
    info = PngInfo()
    for key, value in (notes or {}).items():
        info.add_itxt(key, value)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    atomic_write(path, buffer.getvalue())
    return path


def free_name(path: Path) -> Path:
    """``path``, or the first of ``path-2``, ``path-3`` … that is not taken: nothing is overwritten."""
    number, free = 2, path
    while free.exists():
        free, number = path.with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
    return free
