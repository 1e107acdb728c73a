"""The styles: what happens to the clean drawing. Photograph, black and white, pencil sketch, oil painting."""
from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..world.portrayal import Shot


@lru_cache(maxsize=4)
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    return x, y


def finish(pixels: np.ndarray, shot: Shot) -> np.ndarray:
    """(s, s, 3) float32 0..255, the clean drawing → (s, s, 3) uint8 in the shot's style."""
    size = pixels.shape[0]
    if shot.style == "sketch":
        return _bytes(_sketch(pixels, shot, size / 128))
    x, y = _grid(size)
    pixels = pixels * (shot.gain * (1 + shot.light * (2 * x - 1)))[..., None]
    if shot.style == "painting":
        mean = pixels.mean(2, keepdims=True)
        pixels = np.round((mean + (pixels - mean) * 1.4) / 36) * 36 + 6
        strokes = (np.sin((x + y * 0.6) * 150 + np.sin(y * 24) * 2) * 7)[..., None]
        pixels = pixels * np.float32((0.96, 0.92, 0.82)) + strokes + np.float32((14, 9, 0))
    if shot.style == "mono":
        pixels = np.repeat((pixels * np.float32((0.3, 0.59, 0.11))).sum(2, keepdims=True), 3, 2)
    return _bytes(pixels)


def _sketch(pixels: np.ndarray, shot: Shot, zoom: float) -> np.ndarray:
    """Outlines where the brightness changes, hatching where it is dark, on paper."""
    grey = pixels.mean(2)
    size = grey.shape[0]
    edges = np.abs(np.diff(grey, axis=1, append=grey[:, -1:])) + np.abs(np.diff(grey, axis=0, append=grey[-1:]))
    diagonal = (np.arange(size)[:, None] + np.arange(size)[None]) // max(1, round(zoom))
    hatch = (diagonal % 4 < 2).astype(np.float32)
    grain = np.random.default_rng(shot.seed).normal(size=(size, size)).astype(np.float32) * 3
    tone = 238 - np.clip(edges * 3.2 * zoom ** 0.5, 0, 190) - hatch * np.clip(150 - grey, 0, 150) * 0.42 + grain
    return np.stack([tone, tone * 0.99, tone * 0.96], 2)


def _bytes(pixels: np.ndarray) -> np.ndarray:
    return np.clip(pixels, 0, 255).astype(np.uint8)
