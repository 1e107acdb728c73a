"""Shoulders and what they wear: a collared shirt, a suit with a tie, a striped sweater."""
from __future__ import annotations

from ..world.portrayal import Shot
from .canvas import Canvas, ellipse, shade

_COLOURS = {
    "red": (200, 40, 45), "blue": (40, 80, 190), "green": (40, 140, 70), "yellow": (235, 200, 50),
    "black": (35, 35, 40), "white": (238, 238, 235), "purple": (125, 60, 160), "orange": (235, 125, 35),
}
_SHOULDERS = [(-0.05, 1.3), (-0.03, 0.955), (0.06, 0.895), (0.34, 0.825), (0.5, 0.85), (0.66, 0.825), (0.94, 0.895), (1.03, 0.955), (1.05, 1.3)]


def draw_garment(body: Canvas, shot: Shot, skin) -> None:
    """Neck and garment; ``skin`` is the colour of the shaded neck."""
    cloth = _COLOURS[shot.colour]
    trim = shade(cloth, 0.72) if sum(cloth) > 150 else shade(cloth, 2.0)
    body.polygon([(0.39, 0.62), (0.61, 0.62), (0.63, 0.92), (0.37, 0.92)], skin)
    body.polygon(_SHOULDERS, cloth)
    {"shirt": _shirt, "suit": _suit, "sweater": _sweater}[shot.garment](body, shot, trim, skin)


def _shirt(body: Canvas, shot: Shot, trim, skin) -> None:
    body.polygon([(0.36, 0.80), (0.5, 0.96), (0.64, 0.80), (0.5, 0.84)], skin)
    for side in (-1, 1):
        body.polygon([(0.5 + side * x, y) for x, y in ((0.20, 0.825), (0.13, 0.80), (0.0, 0.955), (0.09, 1.0))], trim)


def _suit(body: Canvas, shot: Shot, trim, skin) -> None:
    body.polygon([(0.35, 0.81), (0.65, 0.81), (0.5, 1.2)], (242, 242, 240))
    tie = (30, 40, 90) if shot.colour == "red" else (120, 25, 35)
    body.polygon([(0.465, 0.86), (0.535, 0.86), (0.56, 1.2), (0.44, 1.2)], tie)
    for side in (-1, 1):
        body.polygon([(0.5 + side * x, y) for x, y in ((0.21, 0.81), (0.13, 0.80), (0.0, 1.16), (0.14, 1.16), (0.26, 0.92))], trim)


def _sweater(body: Canvas, shot: Shot, trim, skin) -> None:
    body.polygon(ellipse(0.5, 0.835, 0.185, 0.068), trim)
    body.polygon(ellipse(0.5, 0.825, 0.14, 0.045), skin)
    for y in (0.925, 0.975):
        body.polygon([(-0.2, y), (1.2, y), (1.2, y + 0.022), (-0.2, y + 0.022)], trim)
