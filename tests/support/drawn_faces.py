"""Photographs for tests: drawn faces whose landmarks are known, on any background, at any size."""
from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw

SKINS = ((244, 208, 180), (224, 172, 140), (176, 124, 88), (120, 80, 56))


def drawn_face(seed: int = 0, size: int = 320, unit: float = 52.0, centre: tuple[float, float] | None = None):
    """One person, as a portrait.

    Args:
        seed: who it is.
        unit: distance between the eyes in pixels.
        centre: x, y between eyes and mouth; the middle of the picture if not given.

    Returns:
        ((size, size, 3) float32 tensor in 0..1, (5, 2) landmarks in pixels).
    """
    picture = Image.new("RGB", (size * 2, size * 2), _background(seed))
    marks = paste_face(picture, seed, unit * 2, tuple(2 * v for v in (centre or (size / 2, size / 2))))
    picture = picture.resize((size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255), marks / 2


def collage(columns: int = 8, rows: int = 5, tile: int = 96):
    """(rows·tile, columns·tile, 3) with one different face in every tile."""
    lines = [torch.cat([drawn_face(row * columns + column, tile, tile / 5.6)[0] for column in range(columns)], dim=1) for row in range(rows)]
    return torch.cat(lines, dim=0)


def landscape(size: int = 320):
    """(size, size, 3): sky, sun, hills, a road. Nobody."""
    picture = Image.new("RGB", (size, size), (120, 180, 235))
    draw = ImageDraw.Draw(picture)
    draw.ellipse([size * 0.7, size * 0.1, size * 0.85, size * 0.25], fill=(250, 230, 120))
    draw.polygon([(0, size * 0.6), (size * 0.35, size * 0.3), (size * 0.7, size * 0.6)], fill=(90, 110, 90))
    draw.rectangle([0, size * 0.55, size, size], fill=(70, 140, 60))
    draw.polygon([(size * 0.45, size * 0.55), (size * 0.55, size * 0.55), (size * 0.8, size), (size * 0.2, size)], fill=(110, 105, 100))
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)


def paste_face(picture: Image.Image, seed: int, unit: float, centre: tuple[float, float]) -> np.ndarray:
    """Draw shoulders, hair, head and features onto ``picture``; return the (5, 2) landmarks."""
    random = np.random.default_rng(seed)
    draw, (cx, cy), u = ImageDraw.Draw(picture), centre, unit
    skin = np.array(SKINS[seed % len(SKINS)])
    hair = tuple(int(v) for v in random.uniform(15, 120, 3))
    wide, long = random.uniform(0.95, 1.1, 2)
    shade = lambda factor: tuple(int(v) for v in skin * factor)  # noqa: E731
    disc = lambda x, y, rx, ry, colour: draw.ellipse([cx + (x - rx) * u, cy + (y - ry) * u, cx + (x + rx) * u, cy + (y + ry) * u], fill=colour)  # noqa: E731
    disc(0, 3.0, 2.6, 1.5, tuple(int(v) for v in random.uniform(30, 220, 3)))  # shoulders
    draw.rectangle([cx - 0.45 * u, cy + u, cx + 0.45 * u, cy + 1.9 * u], fill=shade(0.8))  # neck
    disc(0, -0.45, 1.3 * wide, 1.5 * long, hair)
    disc(0, 0.0, 1.1 * wide, 1.35 * long, tuple(skin))
    disc(0, -1.35, 1.0 * wide, 0.45, hair)
    iris = tuple(int(v) for v in random.uniform(20, 120, 3))
    for side in (-1, 1):
        x = 0.5 * side
        draw.line([cx + (x - 0.28) * u, cy - 0.86 * u, cx + (x + 0.28) * u, cy - 0.86 * u], fill=hair, width=max(1, int(0.1 * u)))
        disc(x, -0.53, 0.24, 0.15, shade(0.5))
        disc(x, -0.53, 0.21, 0.12, (248, 248, 246))
        disc(x, -0.53, 0.12, 0.12, iris)
        disc(x, -0.53, 0.06, 0.06, (10, 10, 12))
    draw.polygon([(cx - 0.05 * u, cy - 0.4 * u), (cx + 0.2 * u, cy + 0.1 * u), (cx - 0.2 * u, cy + 0.1 * u)], fill=shade(0.9))
    draw.line([cx - 0.2 * u, cy + 0.1 * u, cx + 0.2 * u, cy + 0.1 * u], fill=shade(0.68), width=max(1, int(0.06 * u)))
    lip = random.uniform(0.06, 0.12)
    disc(0, 0.53, 0.38, lip, tuple(int(v) for v in skin * (0.8, 0.45, 0.45)))
    draw.line([cx - 0.36 * u, cy + 0.53 * u, cx + 0.36 * u, cy + 0.53 * u], fill=shade(0.35), width=max(1, int(0.05 * u)))
    return np.array([(cx - 0.5 * u, cy - 0.53 * u), (cx + 0.5 * u, cy - 0.53 * u), (cx, cy + 0.05 * u), (cx - 0.38 * u, cy + 0.53 * u), (cx + 0.38 * u, cy + 0.53 * u)])


def _background(seed: int) -> tuple[int, int, int]:
    return tuple(int(v) for v in np.random.default_rng(1000 + seed).uniform(60, 200, 3) * (0.7, 0.95, 1.0))
