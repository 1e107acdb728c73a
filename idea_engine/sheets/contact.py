"""Contact sheets: pictures in rows, with captions."""
from __future__ import annotations

from typing import Sequence

import torch
from torch import Tensor

from ..errors import EvaluationError

_PLATE, _INK, _MARGIN = 22, (24, 24, 28), 4


def contact_sheet(rows: Sequence[Sequence[Tensor]], captions: Sequence[Sequence[str]] | None = None, side: int = 192) -> Tensor:
    """Pictures in a grid, each fitted into a square with its caption below.

    Args:
        rows: rows of (H, W, 3) float pictures in 0..1, of any sizes; rows may differ in length.
        captions: a text for each picture, cut where it does not fit.
        side: of a square, in pixels.

    Returns:
        (H, W, 3) float32 in 0..1.

    Raises:
        EvaluationError: there is no picture.
    """
    import numpy as np
    from PIL import Image, ImageDraw

    if not any(len(row) for row in rows):
        raise EvaluationError("There is no picture to put on the contact sheet. Generate some first.")
    plate = _PLATE if captions is not None else 0
    width, height = side + _MARGIN, side + plate + _MARGIN
    sheet = Image.new("RGB", (max(map(len, rows)) * width + _MARGIN, len(rows) * height + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            small = Image.fromarray((picture.float().clamp(0, 1) * 255).round().to("cpu", torch.uint8).numpy())
            scale = side / max(small.size)
            small = small.resize([max(1, round(edge * scale)) for edge in small.size], Image.Resampling.LANCZOS)
            left, top = _MARGIN + x * width, _MARGIN + y * height
            sheet.paste(small, (left + (side - small.width) // 2, top + (side - small.height) // 2))
            if captions is not None and x < len(captions[y]):
                draw.text((left, top + side + 4), _fitted(draw, captions[y][x], side), fill=_INK)
    return torch.from_numpy(np.asarray(sheet, dtype=np.float32) / 255.0)


def _fitted(draw, text: str, width: int) -> str:
    if draw.textlength(text) <= width:
        return text
    while text and draw.textlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
