"""Attention maps as pictures that people can read."""
from __future__ import annotations

import math
from typing import Sequence

import torch
from torch import Tensor

TILE = 256  # pixels, the longer side of a tile
_STRIP = 26  # pixels, the label below it
_GAP = 6
_INK, _PAPER = (40, 40, 48), (255, 255, 255)
# Nothing, some, much: dark blue over magenta and orange to pale yellow, rising in brightness, so that it also reads in grey.
_RAMP = torch.tensor([[0.0, 0.0, 0.05], [0.28, 0.05, 0.45], [0.78, 0.18, 0.42], [0.98, 0.55, 0.25], [1.0, 0.98, 0.75]])
_DIMMED = 0.45  # of the picture's brightness where nobody looks


def word_shares(maps: Tensor) -> list[float]:
    """(W, h, w) attention → each word's part of all that the words get, in 0..1."""
    totals = maps.flatten(1).sum(1)
    return (totals / totals.sum().clamp_min(1e-12)).tolist()


def word_tiles(maps: Tensor, labels: Sequence[str], picture: Tensor | None = None) -> list:
    """One labelled tile per word: bright where the word looks, each scaled to its own maximum; the label adds its part of the attention.

    Args:
        maps: (W, h, w) ≥ 0. picture: (H, W, 3) in 0..1, shown dimmed and without colour beneath; None for plain grey.

    Returns:
        PIL RGB images of one size.
    """
    from PIL import Image, ImageDraw, ImageFont

    height, width = (picture.shape[:2] if picture is not None else maps.shape[-2:])
    size = tuple(max(1, round(side * TILE / max(height, width))) for side in (height, width))
    resize = lambda image: torch.nn.functional.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]  # noqa: E731
    below = resize(picture.permute(2, 0, 1).float()).mean(0) if picture is not None else torch.full(size, 0.5)
    font, tiles = ImageFont.load_default(size=14), []
    for label, share, heat in zip(labels, word_shares(maps), resize(maps.float())):
        heat = heat / heat.max().clamp_min(1e-12)
        mixed = _DIMMED * below[..., None] * (1 - heat[..., None]) + _coloured(heat) * (0.25 + 0.75 * heat[..., None])
        pixels = (mixed.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        tile = Image.new("RGB", (size[1], size[0] + _STRIP), _PAPER)
        tile.paste(Image.fromarray(pixels), (0, 0))
        draw = ImageDraw.Draw(tile)
        percent = f"{100 * share:.1f} %"
        room = size[1] - 12 - draw.textlength(percent, font=font) - 8
        draw.text((6, size[0] + _STRIP / 2), _fitted(draw, label, font, room), fill=_INK, font=font, anchor="lm")
        draw.text((size[1] - 6, size[0] + _STRIP / 2), percent, fill=_INK, font=font, anchor="rm")
        tiles.append(tile)
    return tiles


def contact_sheet(tiles: Sequence, columns: int = 0):
    """Tiles of one size in rows; ``columns`` 0 makes it about square."""
    from PIL import Image

    columns = columns or math.ceil(math.sqrt(len(tiles)))
    width, height = tiles[0].size
    rows = math.ceil(len(tiles) / columns)
    sheet = Image.new("RGB", (columns * (width + _GAP) + _GAP, rows * (height + _GAP) + _GAP), _PAPER)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        sheet.paste(tile, (_GAP + column * (width + _GAP), _GAP + row * (height + _GAP)))
    return sheet


def _coloured(heat: Tensor) -> Tensor:
    """(H, W) in 0..1 → (H, W, 3)."""
    place = heat.clamp(0, 1) * (len(_RAMP) - 1)
    low = place.floor().long().clamp_max(len(_RAMP) - 2)
    return torch.lerp(_RAMP[low], _RAMP[low + 1], (place - low)[..., None])


def _fitted(draw, text: str, font, room: float) -> str:
    if draw.textlength(text, font=font) <= room:
        return text
    while text and draw.textlength(text + "…", font=font) > room:
        text = text[:-1]
    return text + "…"
