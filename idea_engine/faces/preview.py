"""The numbered preview: which faces were seen, and which one is meant."""
from __future__ import annotations

from typing import Sequence

import numpy as np
import torch
from torch import Tensor

from .embed import PhotoFaces
from .photo import check_photo, small_copy, to_pixels

LONGEST = 1024  # pixels: a preview is for looking at
_CHOSEN, _OTHER, _INK, _PAPER = (64, 220, 96), (255, 196, 0), (16, 16, 16), (255, 255, 255)


def draw_preview(images: Sequence[Tensor], found: Sequence[PhotoFaces]) -> list[Tensor]:
    """Photographs with a box, a number and five points on every face; the chosen face is green and thicker.

    Args:
        images: (H, W, 1 | 3 | 4) float pictures in 0..1.
        found: what :func:`idea_engine.faces.embed.search_photos` said of them.

    Returns:
        One (H, W, 3) float32 picture in 0..1 per photograph, at its own size up to :data:`LONGEST` pixels.
    """
    return [_draw(check_photo(image, f"Photograph {number}"), faces) for number, (image, faces) in enumerate(zip(images, found), 1)]


def _draw(image: Tensor, photo: PhotoFaces) -> Tensor:
    from PIL import Image, ImageDraw

    factor = min(1.0, LONGEST / max(image.shape[:2]))
    picture = Image.fromarray(to_pixels(small_copy(image, LONGEST)))
    draw = ImageDraw.Draw(picture)
    line = max(1, round(max(picture.size) / 320))
    # The chosen face is drawn last, so that no neighbour's box hides it.
    for number in sorted(range(len(photo.faces)), key=lambda number: number == photo.chosen):
        face, chosen = photo.faces[number], number == photo.chosen
        colour = _CHOSEN if chosen else _OTHER
        box = [round(float(value) * factor) for value in face.box]
        draw.rectangle(box, outline=colour, width=line * 2 if chosen else line)
        dot = max(1.0, (box[2] - box[0]) / 60)
        for x, y in (face.landmarks * factor).tolist():
            draw.ellipse([x - dot, y - dot, x + dot, y + dot], fill=colour)
        _label(draw, str(number), box, colour, picture.size)
    if not photo.faces:
        _label(draw, "no face found", [0, 0, *picture.size], _PAPER, picture.size)
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255.0)


def _label(draw, text: str, box: list[int], colour: tuple[int, int, int], size: tuple[int, int]) -> None:
    """``text`` on a plate that stands on the upper left corner of ``box``, or hangs from it where the picture ends."""
    font = _font(min(max(12, (box[3] - box[1]) // 7, max(size) // 40), 48))
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    margin = max(2, (bottom - top) // 4)
    width, height = right - left + 2 * margin, bottom - top + 2 * margin
    x = max(0, min(box[0], size[0] - width))
    y = box[1] - height if box[1] >= height else max(0, min(box[1], size[1] - height))
    draw.rectangle([x, y, x + width, y + height], fill=colour)
    draw.text((x + margin - left, y + margin - top), text, fill=_INK, font=font)


def _font(size: int):
    from PIL import ImageFont

    try:
        return ImageFont.load_default(size)
    except TypeError:  # Pillow before 10.1 has one small size only
        return ImageFont.load_default()
