"""Hair: behind the head, in front of it, and on the chin."""
from __future__ import annotations

import math

import numpy as np

from ..world.people import Person
from .canvas import Canvas, arch, egg, mix, shade
from .geometry import FaceGeometry

_COLOURS = {
    "black": (32, 27, 28), "brown": (96, 60, 36), "blond": (222, 184, 104),
    "red": (172, 66, 30), "gray": (150, 150, 152), "white": (228, 226, 222),
}


def colour(who: Person):
    """The colour of the hair's lit parts."""
    return tuple(int(np.clip(a + b, 8, 250)) for a, b in zip(_COLOURS[who.hair_colour], who.hair_shift))


def brow_colour(who: Person):
    """Brows are darker than the hair unless the hair is light."""
    dark = shade(colour(who), 0.72)
    return dark if who.hair_colour in ("white", "blond") else mix(dark, (40, 30, 25), 0.35)


def draw_behind(head: Canvas, who: Person, f: FaceGeometry) -> None:
    """What hangs or stands behind the head."""
    light, dark = colour(who), shade(colour(who), 0.72)
    x, y, width, up = f.x, f.y, f.half_width, f.up
    if who.hair == "long":
        head.polygon(egg(x, y + 0.06, width + 0.085, up + 0.11, 0.50, 2.2, 4, -0.08), dark)
    elif who.hair == "bob":
        head.polygon(egg(x, y + 0.02, width + 0.08, up + 0.085, f.down - 0.05, 2.2, 5, 0), dark)
    elif who.hair == "afro":
        curls = 15
        for j in range(curls):
            angle = math.pi * 1.62 + (j - (curls - 1) / 2) / (curls - 1) * math.pi * 1.35
            angle -= math.pi * 0.12
            head.ellipse(x + math.cos(angle) * (width + 0.035), y - 0.06 + math.sin(angle) * (up - 0.01), 0.085, 0.085, dark if j % 2 else light)
    elif who.hair == "bun":
        head.ellipse(x, y - up - 0.055, 0.105, 0.08, dark)
    elif who.hair == "spiky":
        points = []
        for j in range(15):
            angle, spike = math.pi + math.pi * j / 14, 0.10 if j % 2 else 0.0
            points.append((x + math.cos(angle) * (width + 0.01 + spike * 0.6), y - 0.08 + math.sin(angle) * (up - 0.05 + spike)))
        head.polygon(points, light)


def draw_front(head: Canvas, who: Person, f: FaceGeometry) -> None:
    """What frames the forehead."""
    light, dark = colour(who), shade(colour(who), 0.72)
    x, y, width, up, line = f.x, f.y, f.half_width, f.up, f.hairline
    side = width + 0.014
    crown = arch(x, y - 0.04, side, up - 0.03)
    if who.hair == "short":
        head.polygon(crown + [(x + side * 0.93, line + 0.075), (x + side * 0.75, line + 0.01), (x, line - 0.015), (x - side * 0.75, line + 0.01), (x - side * 0.93, line + 0.075)], light)
    elif who.hair == "parted":
        head.polygon(crown + [(x + side * 0.97, y - 0.03), (x + side * 0.85, line + 0.055), (x - side * 0.3, line - 0.03), (x - side * 0.75, line + 0.06), (x - side * 0.97, y - 0.03)], light)
        head.line([(x - side * 0.3, line - 0.03), (x - side * 0.15, y - up - 0.01)], dark, 0.016)
    elif who.hair in ("bob", "long"):
        cap = arch(x, y - 0.03, width + 0.06, up + 0.03)
        if who.hair == "bob":
            fringe = [(x + width + 0.06, y + 0.20), (x + width * 0.95, y + 0.16), (x + width * 0.88, line + 0.07), (x, line), (x - width * 0.88, line + 0.07), (x - width * 0.95, y + 0.16), (x - width - 0.06, y + 0.20)]
        else:
            fringe = [(x + width + 0.07, y + 0.42), (x + width * 1.0, y + 0.40), (x + width * 0.93, line + 0.11), (x + 0.02, line - 0.04), (x - width * 0.93, line + 0.11), (x - width * 1.0, y + 0.40), (x - width - 0.07, y + 0.42)]
        head.polygon(cap + fringe, light)
    elif who.hair == "afro":
        for j in range(9):
            u = (j - 4) / 4
            head.ellipse(x + u * width * 0.92, line - 0.045 + 0.06 * u * u, 0.062, 0.052, light if j % 2 else dark)
    elif who.hair == "bun":
        head.polygon(crown + [(x + side * 0.96, y - 0.08), (x + side * 0.6, line), (x, line - 0.03), (x - side * 0.6, line), (x - side * 0.96, y - 0.08)], light)
    elif who.hair == "spiky":
        teeth = [(x + u * side * 0.9, line + (0.05 if k % 2 else -0.03)) for k, u in enumerate(np.linspace(1, -1, 9))]
        head.polygon(crown + [(x + side * 0.93, y - 0.09), *teeth, (x - side * 0.93, y - 0.09)], light)
    if who.hair not in ("bald", "afro", "spiky"):
        shine = arch(x, y - 0.04, width * 0.72, up - 0.06, 6, math.pi * 1.25, math.pi * 1.6)
        head.line(shine, mix(light, (255, 255, 255), 0.2), 0.016)


def draw_beard(head: Canvas, who: Person, f: FaceGeometry, skin) -> None:
    """A full beard or a goatee, under the mouth that is drawn next."""
    tone = mix(colour(who), skin, 0.12)
    if who.beard == "beard":
        jaw = egg(f.x, f.y, f.half_width, f.up, f.down + 0.014, 2.2, f.jaw_power, f.taper)[1:18]
        upper, corner = f.mouth_y - 0.06, f.mouth_width + 0.014
        head.polygon(np.concatenate([jaw, [
            (f.x - f.half_width * 0.85, f.y + 0.10), (f.feature_x - corner, upper), (f.feature_x + corner, upper), (f.x + f.half_width * 0.85, f.y + 0.10),
        ]]), tone)
    elif who.beard == "goatee":
        head.ellipse(f.feature_x, f.y + f.down - 0.045, 0.075, 0.062, tone)


def draw_moustache(head: Canvas, who: Person, f: FaceGeometry) -> None:
    """Between nose and mouth, over the upper lip."""
    x, y, width = f.feature_x, f.mouth_y - 0.012, f.mouth_width
    head.polygon([
        (x - width - 0.014, y), (x - width * 0.5, y - 0.048), (x, y - 0.038),
        (x + width * 0.5, y - 0.048), (x + width + 0.014, y), (x, y - 0.012),
    ], shade(colour(who), 0.72))
