"""Drawing in the unit square: polygons and lines through a tilt and a zoom, with integer-free coordinates.

Coordinates are in widths of the frame, x to the right and y down, so that one drawing serves every resolution.
"""
from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]

_ANGLES = np.linspace(0, 2 * np.pi, 36, endpoint=False)
_COS, _SIN = np.cos(_ANGLES), np.sin(_ANGLES)


def ellipse(x: float, y: float, a: float, b: float) -> np.ndarray:
    """(36, 2) points of an ellipse with half axes a and b."""
    return np.stack([x + a * _COS, y + b * _SIN], 1)


def egg(x, y, half_width, up, down, power_up, power_down, taper) -> np.ndarray:
    """(36, 2) points of a head: a superellipse whose lower half has its own power and tapers to the chin."""
    power = np.where(_SIN > 0, power_down, power_up)
    u = np.sign(_COS) * np.abs(_COS) ** (2 / power)
    v = np.sign(_SIN) * np.abs(_SIN) ** (2 / power)
    u = u * (1 - taper * np.clip(v, 0, 1) ** 1.5)
    return np.stack([x + half_width * u, y + v * np.where(v > 0, down, up)], 1)


def arch(x, y, a, b, steps=19, start=math.pi, stop=2 * math.pi) -> list[tuple[float, float]]:
    """Points of the upper half of an ellipse, from left to right."""
    return [(x + math.cos(t) * a, y + math.sin(t) * b) for t in np.linspace(start, stop, steps)]


def mix(first, second, amount: float) -> Colour:
    """From ``first`` (amount 0) to ``second`` (amount 1)."""
    return tuple(int(p * (1 - amount) + q * amount) for p, q in zip(first, second))


def shade(colour, factor: float) -> Colour:
    """A colour, lighter or darker by a factor."""
    return tuple(int(max(0, min(255, c * factor))) for c in colour)


class Canvas:
    """An image one draws on in unit coordinates, through a zoom about (.5, 1) and a tilt about a pivot."""

    def __init__(self, image: Image.Image, scale=1.0, dx=0.0, dy=0.0, tilt=0.0, pivot=(0.5, 0.78)):
        self.image = image
        self._draw = ImageDraw.Draw(image)
        self._size = image.size[0]
        self._scale = scale
        cos, sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
        turn = np.array([[cos, sin], [-sin, cos]])
        pivot = np.array(pivot)
        # points @ matrix + offset, tilt first, then zoom, then shift
        self._matrix = turn * scale
        self._offset = (pivot - pivot @ turn - (0.5, 1.0)) * scale + (0.5 + dx, 1.0 + dy)

    def place(self, points) -> np.ndarray:
        """(k, 2) unit coordinates before the zoom and tilt → after, still in the unit square."""
        return np.asarray(points, float) @ self._matrix + self._offset

    def polygon(self, points, colour: Colour) -> None:
        self._draw.polygon((self.place(points) * self._size).ravel().tolist(), fill=colour)

    def line(self, points, colour: Colour, width: float) -> None:
        """A line of the given width, in widths of the frame."""
        pixels = max(1, int(width * self._size * self._scale))
        self._draw.line((self.place(points) * self._size).ravel().tolist(), fill=colour, width=pixels, joint="curve")

    def ellipse(self, x, y, a, b, colour: Colour) -> None:
        self.polygon(ellipse(x, y, a, b), colour)
