"""Backgrounds: eight scenes, two dozen variants of each, drawn once per resolution and kept.

The head covers the middle, so what tells a scene apart stands at the sides and in the upper corners.
"""
from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from ..world.portrayal import SCENES

VARIANTS = 24
MARGIN = 1.15  # scenes are larger than the frame: a random crop makes each use different

_SKIES = {
    "beach": ((90, 170, 230), (200, 230, 245)), "forest": ((120, 170, 110), (40, 90, 45)),
    "city": ((12, 14, 40), (50, 40, 90)), "mountains": ((130, 170, 215), (225, 235, 245)),
    "desert": ((240, 150, 80), (250, 215, 150)), "library": ((95, 60, 35), (70, 42, 25)),
    "space": ((6, 5, 18), (25, 12, 45)),
}
_BOOKS = ((150, 45, 40), (45, 75, 120), (60, 105, 65), (190, 150, 80), (95, 60, 110), (205, 195, 170))
_PLANETS = ((200, 120, 70), (90, 150, 200), (170, 110, 180))


@lru_cache(maxsize=len(SCENES) * VARIANTS)
def scene(name: str, variant: int, size: int) -> Image.Image:
    """The scene as a square RGB image of ``size · MARGIN`` pixels. Shared: copy before drawing on it."""
    rng = np.random.default_rng([SCENES.index(name), variant, 64])
    pixels = int(size * MARGIN)
    if name == "studio":
        base = rng.uniform(120, 215, size=3) * 0.35 + rng.uniform(130, 215) * 0.65
        return _gradient(np.clip(base * 1.1, 0, 255), base * 0.75, pixels)
    image = _gradient(*_SKIES[name], pixels)
    _PAINTERS[name](_Brush(ImageDraw.Draw(image), pixels, rng))
    return image


def _gradient(top, bottom, pixels: int) -> Image.Image:
    t = np.linspace(0, 1, pixels)[:, None, None]
    rows = np.array(top) * (1 - t) + np.array(bottom) * t
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(rows, (pixels, pixels, 3)).astype(np.uint8)))


class _Brush:
    """Polygons and ellipses in unit coordinates, and a source of chance."""

    def __init__(self, draw, pixels, rng):
        self._draw, self._pixels, self.rng = draw, pixels, rng

    def chance(self, low=0.0, high=1.0) -> float:
        return float(self.rng.uniform(low, high))

    def polygon(self, points, colour):
        self._draw.polygon([(x * self._pixels, y * self._pixels) for x, y in points], fill=colour)

    def ellipse(self, x, y, a, b, colour):
        k = self._pixels
        self._draw.ellipse([(x - a) * k, (y - b) * k, (x + a) * k, (y + b) * k], fill=colour)

    def side(self, inner=0.05, outer=0.25) -> float:
        """A place near the left or right edge."""
        return self.chance(inner, outer) if self.chance() < 0.5 else self.chance(1 - outer, 1 - inner)


def _beach(b: _Brush):
    horizon = b.chance(0.40, 0.50)
    b.ellipse(b.side(), b.chance(0.08, 0.2), 0.06, 0.06, (255, 240, 170))
    b.polygon([(0, horizon), (1, horizon), (1, 0.75), (0, 0.75)], (35, 110, 180))
    b.polygon([(0, horizon + 0.12), (1, horizon + 0.1), (1, 0.8), (0, 0.8)], (70, 165, 205))
    b.polygon([(0, 0.72), (1, b.chance(0.66, 0.74)), (1, 1), (0, 1)], (232, 208, 150))


def _forest(b: _Brush):
    for _ in range(16):
        leaf = (int(b.chance(30, 80)), int(b.chance(95, 150)), int(b.chance(35, 70)))
        b.ellipse(b.chance(), b.chance(0, 0.45), b.chance(0.08, 0.16), b.chance(0.06, 0.14), leaf)
    for x in np.linspace(0, 1, 7):
        width, x = b.chance(0.015, 0.035), x + b.chance(-0.05, 0.05)
        b.polygon([(x - width, 0), (x + width, 0), (x + width * 1.2, 0.9), (x - width * 1.2, 0.9)], (80, 55, 35))
    for _ in range(10):
        leaf = (int(b.chance(25, 60)), int(b.chance(80, 120)), int(b.chance(30, 55)))
        b.ellipse(b.chance(), b.chance(0.75, 1), b.chance(0.08, 0.2), b.chance(0.04, 0.1), leaf)


def _city(b: _Brush):
    x = 0.0
    while x < 1:
        width, top, grey = b.chance(0.09, 0.16), b.chance(0.1, 0.42), int(b.chance(22, 48))
        b.polygon([(x, top), (x + width, top), (x + width, 1), (x, 1)], (grey, grey, grey + 14))
        for row in np.arange(top + 0.03, 1, 0.06):
            for column in np.arange(x + 0.018, x + width - 0.025, 0.04):
                if b.chance() < 0.55:
                    b.polygon([(column, row), (column + 0.02, row), (column + 0.02, row + 0.03), (column, row + 0.03)], (250, 215, 110))
        x += width + 0.01


def _mountains(b: _Brush):
    for x in (b.chance(0, 0.25), b.chance(0.75, 1), b.chance(), b.chance()):
        top, half = b.chance(0.12, 0.35), b.chance(0.25, 0.4)
        b.polygon([(x - half, 0.75), (x, top), (x + half, 0.75)], (100, 112, 135))
        snow = top + (0.75 - top) * 0.35
        b.polygon([(x - half * 0.35, snow), (x, top), (x + half * 0.35, snow), (x + 0.05, top + 0.12), (x - 0.04, top + 0.17)], (250, 250, 252))
    b.polygon([(0, 0.7), (1, b.chance(0.64, 0.74)), (1, 1), (0, 1)], (240, 244, 250))


def _desert(b: _Brush):
    b.ellipse(b.side(), b.chance(0.1, 0.25), 0.07, 0.07, (255, 225, 120))
    b.polygon([(0, 0.55), (0.3, b.chance(0.45, 0.55)), (0.7, 0.6), (1, b.chance(0.48, 0.58)), (1, 1), (0, 1)], (225, 165, 85))
    b.polygon([(0, 0.75), (0.5, b.chance(0.65, 0.75)), (1, 0.8), (1, 1), (0, 1)], (205, 140, 65))
    for x in (b.chance(0.05, 0.16), b.chance(0.84, 0.95)):
        for left, right, top, bottom in ((-0.02, 0.02, 0.38, 0.75), (-0.07, 0.07, 0.5, 0.53), (-0.07, -0.045, 0.43, 0.53), (0.045, 0.07, 0.40, 0.53)):
            b.polygon([(x + left, top), (x + right, top), (x + right, bottom), (x + left, bottom)], (60, 115, 60))


def _library(b: _Brush):
    for y in np.linspace(0.02, 0.9, 5):
        x = 0.0
        while x < 1:
            width, height = b.chance(0.03, 0.055), b.chance(0.13, 0.17)
            book = _BOOKS[b.rng.integers(len(_BOOKS))]
            b.polygon([(x, y + 0.19 - height), (x + width, y + 0.19 - height), (x + width, y + 0.19), (x, y + 0.19)], book)
            x += width + 0.004
        b.polygon([(0, y + 0.19), (1, y + 0.19), (1, y + 0.215), (0, y + 0.215)], (60, 35, 20))


def _space(b: _Brush):
    for _ in range(60):
        radius = b.chance(0.004, 0.008)
        b.ellipse(b.chance(), b.chance(), radius, radius, (235, 235, 255))
    x, y, radius = b.side(0.08, 0.2), b.chance(0.12, 0.4), b.chance(0.09, 0.14)
    b.ellipse(x, y, radius, radius, _PLANETS[b.rng.integers(len(_PLANETS))])
    b.polygon([(x - radius * 1.7, y + 0.04), (x + radius * 1.7, y - 0.05), (x + radius * 1.7, y - 0.03), (x - radius * 1.7, y + 0.06)], (225, 210, 170))


_PAINTERS = {
    "beach": _beach, "forest": _forest, "city": _city, "mountains": _mountains,
    "desert": _desert, "library": _library, "space": _space,
}
