"""The loss of a training as a picture."""
from __future__ import annotations

import math
from typing import Sequence

WIDTH, HEIGHT = 768, 384  # pixels
_LEFT, _TOP, _RIGHT, _BOTTOM = 72, 44, 24, 52
_INK, _GRID, _RAW, _SMOOTH = (40, 40, 48), (226, 228, 232), (168, 196, 236), (28, 92, 190)
_SMOOTHING = 0.1  # weight of a new value in the running mean


def loss_chart(losses: Sequence[float | None], title: str):
    """Draw the loss of every step, pale, and its running mean, dark.

    Args:
        losses: one per step; None and values that are not finite leave gaps.

    Returns:
        a PIL RGB image of 768×384 pixels.
    """
    from PIL import Image, ImageDraw, ImageFont

    losses = [math.nan if loss is None else loss for loss in losses]
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    small, large = ImageFont.load_default(size=14), ImageFont.load_default(size=18)
    finite = [loss for loss in losses if math.isfinite(loss)] or [0.0]
    ticks = nice_ticks(min(finite), max(finite))
    low, high, steps = ticks[0], ticks[-1], max(2, len(losses))

    def point(index: float, value: float) -> tuple[float, float]:
        x = _LEFT + (WIDTH - _LEFT - _RIGHT) * index / (steps - 1)
        y = HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (value - low) / (high - low)
        return x, y

    draw.text((_LEFT, 12), title, fill=_INK, font=large)
    for tick in ticks:
        y = point(0, tick)[1]
        draw.line([(_LEFT, y), (WIDTH - _RIGHT, y)], fill=_GRID)
        draw.text((_LEFT - 8, y), f"{tick:.4g}", fill=_INK, font=small, anchor="rm")
    for tick in nice_ticks(1, steps):
        if tick == int(tick) and 1 <= tick <= steps:
            x = point(tick - 1, low)[0]
            draw.line([(x, HEIGHT - _BOTTOM), (x, HEIGHT - _BOTTOM + 5)], fill=_INK)
            draw.text((x, HEIGHT - _BOTTOM + 8), f"{int(tick)}", fill=_INK, font=small, anchor="mt")
    draw.line([(_LEFT, _TOP), (_LEFT, HEIGHT - _BOTTOM), (WIDTH - _RIGHT, HEIGHT - _BOTTOM)], fill=_INK)
    draw.text(((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 8), "training step", fill=_INK, font=small, anchor="mb")
    draw.text((WIDTH - _RIGHT, 16), "noise-prediction loss and its running mean", fill=_INK, font=small, anchor="rt")
    _curve(draw, [point(i, loss) for i, loss in enumerate(losses)], losses, _RAW, 1)
    smooth = running_mean(losses)
    _curve(draw, [point(i, value) for i, value in enumerate(smooth)], smooth, _SMOOTH, 3)
    return image


def running_mean(losses: Sequence[float]) -> list[float]:
    """Exponential running mean, corrected for its start; values that are not finite are passed over."""
    mean, weight, smooth = 0.0, 0.0, []
    for loss in losses:
        if math.isfinite(loss):
            mean = (1 - _SMOOTHING) * mean + _SMOOTHING * loss
            weight = (1 - _SMOOTHING) * weight + _SMOOTHING
        smooth.append(mean / weight if weight else math.nan)
    return smooth


def nice_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers that enclose ``low``…``high``, about ``wanted`` of them, at least two."""
    span = max(high - low, abs(high) * 1e-3, 1e-9)
    raw = span / wanted
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [step * i for i in range(first, max(last, first + 1) + 1)]


def _curve(draw, points, values, colour, width) -> None:
    run: list[tuple[float, float]] = []
    for point, value in zip([*points, (0.0, 0.0)], [*values, math.nan]):
        if math.isfinite(value):
            run.append(point)
        else:
            if len(run) > 1:
                draw.line(run, fill=colour, width=width, joint="curve")
            elif run:
                draw.ellipse([run[0][0] - 2, run[0][1] - 2, run[0][0] + 2, run[0][1] + 2], fill=colour)
            run = []
