"""The course of a training as a picture: its loss, and how alike the previews were."""
from __future__ import annotations

import math
from typing import Sequence

WIDTH, HEIGHT = 768, 384  # pixels
_LEFT, _TOP, _RIGHT, _BOTTOM = 72, 44, 24, 52
_SECOND_AXIS = 72  # room for the labels of a second axis
_INK, _GRID, _RAW, _SMOOTH, _ALIKE = (40, 40, 48), (226, 228, 232), (168, 196, 236), (28, 92, 190), (196, 92, 0)
_SMOOTHING = 0.1  # weight of a new value in the running mean


def loss_chart(losses: Sequence[float | None], title: str, likenesses: Sequence[Sequence[float]] = ()):
    """Draw the loss of every step, pale, and its running mean, dark; likeness, if it was measured, on an axis of its own with the best step marked.

    Args:
        losses: one per step; None and values that are not finite leave gaps.
        likenesses: pairs (step, likeness), in the order of their steps.

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
    right = WIDTH - (_SECOND_AXIS if likenesses else _RIGHT)

    def point(index: float, value: float, low: float = low, high: float = high) -> tuple[float, float]:
        x = _LEFT + (right - _LEFT) * index / (steps - 1)
        y = HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (value - low) / (high - low)
        return x, y

    draw.text((_LEFT, 12), title, fill=_INK, font=large)
    for tick in ticks:
        y = point(0, tick)[1]
        draw.line([(_LEFT, y), (right, y)], fill=_GRID)
        draw.text((_LEFT - 8, y), f"{tick:.4g}", fill=_INK, font=small, anchor="rm")
    for tick in nice_ticks(1, steps):
        if tick == int(tick) and 1 <= tick <= steps:
            x = point(tick - 1, low)[0]
            draw.line([(x, HEIGHT - _BOTTOM), (x, HEIGHT - _BOTTOM + 5)], fill=_INK)
            draw.text((x, HEIGHT - _BOTTOM + 8), f"{int(tick)}", fill=_INK, font=small, anchor="mt")
    draw.line([(_LEFT, _TOP), (_LEFT, HEIGHT - _BOTTOM), (right, HEIGHT - _BOTTOM)], fill=_INK)
    draw.text(((_LEFT + right) / 2, HEIGHT - 8), "training step", fill=_INK, font=small, anchor="mb")
    if not likenesses:
        draw.text((right, 16), "noise-prediction loss and its running mean", fill=_INK, font=small, anchor="rt")
    _curve(draw, [point(i, loss) for i, loss in enumerate(losses)], losses, _RAW, 1)
    smooth = running_mean(losses)
    _curve(draw, [point(i, value) for i, value in enumerate(smooth)], smooth, _SMOOTH, 3)
    if likenesses:
        _second_axis(draw, point, likenesses, right, small)
    return image


def _second_axis(draw, point, likenesses: Sequence[Sequence[float]], right: int, font) -> None:
    """Likeness in a colour of its own, with an axis on the right in the same colour; a ring marks the best step."""
    values = [value for _, value in likenesses]
    ticks = nice_ticks(min(values), max(values))
    low, high = ticks[0], ticks[-1]
    for tick in ticks:
        y = point(0, tick, low, high)[1]
        draw.line([(right, y), (right + 5, y)], fill=_ALIKE)
        draw.text((right + 8, y), f"{tick:.4g}", fill=_ALIKE, font=font, anchor="lm")
    draw.line([(right, _TOP), (right, HEIGHT - _BOTTOM)], fill=_ALIKE)
    points = [point(step - 1, value, low, high) for step, value in likenesses]
    _curve(draw, points, values, _ALIKE, 2)
    for x, y in points:
        draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=_ALIKE)
    best, value = max(likenesses, key=lambda judged: (judged[1], judged[0]))
    x, y = point(best - 1, value, low, high)
    draw.ellipse([x - 7, y - 7, x + 7, y + 7], outline=_ALIKE, width=2)
    head = WIDTH - _RIGHT
    for words, colour in ((f"likeness, best {value:.2f} at step {best}", _ALIKE), ("loss, running mean · ", _SMOOTH)):
        draw.text((head, 16), words, fill=colour, font=font, anchor="rt")
        head -= draw.textlength(words, font=font)


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
