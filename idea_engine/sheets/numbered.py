"""Contact sheets: numbered pictures with a coloured border and a few words."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import torch
from torch import Tensor

from ..faces.photo import small_copy

GOOD, DOUBTFUL, BAD = (40, 160, 80), (226, 150, 20), (205, 50, 50)
_TILE, _BORDER, _GAP, _LINE = 216, 6, 10, 19  # pixels
_PAPER, _INK = (250, 250, 248), (30, 30, 34)
_MOST_COLUMNS = 6
_LONGEST = 2048  # pixels; what is larger is first averaged down to this, which takes less memory
_LINES = 3


@dataclass(frozen=True)
class Tile:
    """One picture (H, W, 3) in 0..1 of any size, its number, border colour, and a few short lines of text below."""

    picture: Tensor
    number: int
    colour: tuple[int, int, int]
    words: tuple[str, ...]


def draw_sheet(tiles: Sequence[Tile], title: str) -> Tensor:
    """Tiles in rows.

    Returns:
        (H, W, 3) float32 in 0..1.
    """
    import numpy as np
    from PIL import Image, ImageDraw

    columns = min(_MOST_COLUMNS, max(2, len(tiles)))
    rows = -(-len(tiles) // columns)
    lines = min(_LINES, max((len(tile.words) for tile in tiles), default=0))
    wide, high = _TILE + 2 * _BORDER + _GAP, _TILE + 2 * _BORDER + lines * _LINE + _GAP
    sheet = Image.new("RGB", (columns * wide + _GAP, 34 + rows * high + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 8), _fitted(draw, title, sheet.width - 2 * _GAP, _font(17)), fill=_INK, font=_font(17))
    for place, tile in enumerate(tiles):
        left, top = _GAP + place % columns * wide, 34 + place // columns * high
        draw.rectangle([left, top, left + _TILE + 2 * _BORDER - 1, top + _TILE + 2 * _BORDER - 1], fill=tile.colour)
        small = Image.fromarray((small_copy(tile.picture, _LONGEST).float().clamp(0, 1) * 255).round().to("cpu", torch.uint8).numpy())
        scale = _TILE / max(small.size)
        small = small.resize((max(1, round(small.width * scale)), max(1, round(small.height * scale))), Image.Resampling.LANCZOS)
        draw.rectangle([left + _BORDER, top + _BORDER, left + _BORDER + _TILE - 1, top + _BORDER + _TILE - 1], fill=_PAPER)
        sheet.paste(small, (left + _BORDER + (_TILE - small.width) // 2, top + _BORDER + (_TILE - small.height) // 2))
        number = str(tile.number)
        plate = draw.textlength(number, font=_font(18)) + 12
        draw.rectangle([left, top, left + plate, top + 26], fill=tile.colour)
        draw.text((left + 6, top + 3), number, fill="white", font=_font(18))
        words = tile.words if len(tile.words) <= _LINES else (*tile.words[: _LINES - 1], f"and {len(tile.words) - _LINES + 1} more")
        for line, text in enumerate(words):
            at = (left, top + _TILE + 2 * _BORDER + 2 + line * _LINE)
            draw.text(at, _fitted(draw, text, _TILE + 2 * _BORDER, _font(14)), fill=_INK, font=_font(14))
    return torch.from_numpy(np.asarray(sheet, dtype=np.float32) / 255.0)


def _fitted(draw, text: str, width: float, font) -> str:
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "…", font=font) > width:
        text = text[:-1]
    return text + "…"


def _font(size: int):
    from PIL import ImageFont

    try:
        return ImageFont.load_default(size)
    except TypeError:  # Pillow before 10.1 has one small size only
        return ImageFont.load_default()
