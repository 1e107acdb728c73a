"""One portrait: a person in a shot → pixels. Deterministic: the same two values give the same picture, byte for byte."""
from __future__ import annotations

import random

import numpy as np
from PIL import Image

from ..world.people import Person
from ..world.portrayal import Shot
from . import hair as hair_parts
from .canvas import Canvas, egg, ellipse, mix, shade
from .garments import draw_garment
from .geometry import FaceGeometry, face_geometry
from .scenes import VARIANTS, scene
from .styles import finish

SIZE = 128
SUPERSAMPLING = 3

_SKINS = np.array([(250, 222, 200), (240, 200, 168), (222, 172, 132), (190, 136, 96), (142, 96, 66), (92, 60, 44)], float)
_EYES = {"brown": (88, 52, 28), "blue": (62, 120, 200), "green": (70, 150, 86), "gray": (120, 130, 140), "hazel": (165, 120, 50)}
_DARK = (25, 22, 25)


def render(who: Person, shot: Shot, size: int = SIZE, supersampling: int = SUPERSAMPLING) -> np.ndarray:
    """(size, size, 3) uint8 RGB portrait."""
    image = _background(shot, size * supersampling)
    face = face_geometry(who, shot)
    body = Canvas(image, shot.scale, shot.dx, shot.dy)
    head = Canvas(image, shot.scale, shot.dx, shot.dy, shot.tilt)
    skin = _skin(who)
    hair_parts.draw_behind(head, who, face)
    draw_garment(body, shot, shade(skin, 0.8))
    _draw_head(head, who, face, skin)
    hair_parts.draw_beard(head, who, face, skin)
    _draw_freckles(head, who, face, skin)
    _draw_mouth(head, who, face, shot, skin)
    if who.beard in ("moustache", "beard"):
        hair_parts.draw_moustache(head, who, face)
    _draw_nose(head, face, skin)
    for side in (-1, 1):
        _draw_eye(head, who, face, side, skin)
    hair_parts.draw_front(head, who, face)
    _draw_accessory(head, face, shot)
    return finish(np.asarray(image.reduce(supersampling), dtype=np.float32), shot)


def landmarks(who: Person, shot: Shot) -> np.ndarray:
    """(5, 2) eyes, nose tip and mouth corners in widths of the frame, left before right as the viewer sees them."""
    return _placed(shot).place(face_geometry(who, shot).landmarks())


def face_box(who: Person, shot: Shot) -> np.ndarray:
    """(4,) x1 y1 x2 y2 around the face, in widths of the frame."""
    corners = _placed(shot).place(face_geometry(who, shot).box())
    return np.concatenate([corners.min(0), corners.max(0)])


def _placed(shot: Shot) -> Canvas:
    return Canvas(Image.new("RGB", (1, 1)), shot.scale, shot.dx, shot.dy, shot.tilt)


def _background(shot: Shot, size: int) -> Image.Image:
    chance = random.Random(shot.seed)
    backdrop = scene(shot.scene, chance.randrange(VARIANTS), size)
    slack = backdrop.size[0] - size
    # fractions, not pixels, so that another resolution shows the same part
    left, top = int(chance.random() * slack), int(chance.random() * slack)
    image = backdrop.crop((left, top, left + size, top + size))
    return image.transpose(Image.FLIP_LEFT_RIGHT) if chance.random() < 0.5 else image


def _skin(who: Person):
    place = who.traits["skin"] * 4.999
    low = int(place)
    colour = _SKINS[low] * (1 - place + low) + _SKINS[low + 1] * (place - low)
    warm = (who.traits["warmth"] - 0.5) * 18
    return tuple(int(np.clip(v, 0, 255)) for v in (colour[0] + warm, colour[1], colour[2] - warm))


def _draw_head(head: Canvas, who: Person, f: FaceGeometry, skin) -> None:
    for side in (-1, 1):
        head.ellipse(f.x + side * (f.half_width + f.ear * 0.2), f.y + 0.02, f.ear * 0.75, f.ear * 1.25, shade(skin, 0.8))
    head.polygon(egg(f.x, f.y, f.half_width, f.up, f.down, 2.2, f.jaw_power, f.taper), skin)
    blush = mix(skin, (215, 90, 80), 0.18)
    for side in (-1, 1):
        head.ellipse(f.feature_x + side * f.half_width * 0.62, f.y + 0.115, 0.055, 0.036, blush)


def _draw_freckles(head: Canvas, who: Person, f: FaceGeometry, skin) -> None:
    if who.freckles is None:
        return
    chance = random.Random(who.freckles)
    for _ in range(20):
        side = chance.choice((-1, 1))
        x, y = f.feature_x + side * chance.uniform(0.04, f.half_width * 0.8), f.y + chance.uniform(0.055, 0.15)
        head.polygon(ellipse(x, y, 0.0085, 0.0085)[::6], mix(skin, (110, 55, 25), 0.55))


def _draw_mouth(head: Canvas, who: Person, f: FaceGeometry, shot: Shot, skin) -> None:
    lips = mix(mix(skin, (190, 70, 75), 0.6), (120, 30, 50), who.traits["lip_redness"] * 0.6)
    x, y, width, lip = f.feature_x, f.mouth_y, f.mouth_width, f.lip
    u = np.linspace(-1, 1, 13)
    bulge = 1 - u ** 2
    if shot.expression == "smiling":
        top = np.stack([x + u * width * 1.12, y - 0.014 - u ** 2 * 0.028], 1)
        bottom = np.stack([x + u[::-1] * width * 1.12, y - 0.042 + bulge * (0.062 + lip)], 1)
        head.polygon(np.concatenate([top - (0, lip * 0.6), bottom + (0, lip * 0.7)]), lips)
        head.polygon(np.concatenate([top, bottom]), (250, 248, 245))
        return
    if shot.expression == "surprised":
        head.ellipse(x, y + 0.012, width * 0.55 + lip * 0.6, 0.047 + lip, lips)
        head.ellipse(x, y + 0.012, width * 0.55 - 0.008, 0.040, (75, 20, 25))
        return
    curve = {"neutral": 0.003, "sad": -0.036, "angry": -0.014}[shot.expression]
    reach = width * (0.8 if shot.expression == "angry" else 0.95)
    middle = y - curve + bulge * curve * 1.6
    upper = np.stack([x + u * reach, middle - lip * bulge], 1)
    lower = np.stack([x + u[::-1] * reach, middle[::-1] + lip * 1.25 * bulge], 1)
    head.polygon(np.concatenate([upper, lower]), lips)
    head.line(np.stack([x + u * reach, middle], 1), shade(lips, 0.5), 0.012)


def _draw_nose(head: Canvas, f: FaceGeometry, skin) -> None:
    top, x, y, width = f.y - 0.01, f.nose_x, f.nose_y, f.nose_width
    bridge = f.feature_x
    head.polygon(
        [(bridge - width * 0.28, top), (bridge + width * 0.28, top), (x + width, y), (x, y + 0.018), (x - width, y)], shade(skin, 0.9)
    )
    nostrils = [(x - width, y - 0.005), (x - width * 0.4, y + 0.015), (x, y + 0.008), (x + width * 0.4, y + 0.015), (x + width, y - 0.005)]
    head.line(nostrils, shade(skin, 0.62), 0.014)


_SIN = ellipse(0, 0, 1, 1)[:, 1]
_COS = ellipse(0, 0, 1, 1)[:, 0]


def _draw_eye(head: Canvas, who: Person, f: FaceGeometry, side: int, skin) -> None:
    x, y = f.feature_x + side * f.eye_distance, f.eye_y
    lid = np.stack([_COS * f.eye_width, np.sign(_SIN) * np.abs(_SIN) ** 1.1 * f.eye_opening], 1)
    lid[:, 1] -= side * f.eye_tilt * lid[:, 0]
    head.polygon(lid * 1.16 + (x, y), shade(skin, 0.45))
    head.polygon(lid + (x, y), (250, 250, 248))
    iris = f.iris
    head.ellipse(x, y, iris, iris, _EYES[who.eye_colour])
    head.ellipse(x, y, iris * 0.48, iris * 0.48, (15, 12, 14))
    head.polygon(ellipse(x - iris * 0.3, y - iris * 0.35, iris * 0.24, iris * 0.24)[::4], (255, 255, 255))
    u = np.linspace(-1, 1, 7)
    brow = np.stack([
        x + u * f.eye_width * 1.2,
        # the inner end is lowered by anger and raised by sadness
        f.brow_y - f.brow_arch * (1 - u ** 2) + f.brow_slope * side * u * f.eye_width * 0.6,
    ], 1)
    head.line(brow, hair_parts.brow_colour(who), f.brow_thickness)


def _draw_accessory(head: Canvas, f: FaceGeometry, shot: Shot) -> None:
    x, width = f.x, f.half_width
    if shot.accessory == "hat":
        brim = f.y - f.up + 0.055
        felt = [(x - width * 0.92, brim), (x - width * 0.78, brim - 0.17), (x + width * 0.78, brim - 0.17), (x + width * 0.92, brim)]
        head.polygon(felt, (70, 48, 34))
        head.polygon([(x - width * 0.92, brim), (x - width * 0.87, brim - 0.055), (x + width * 0.87, brim - 0.055), (x + width * 0.92, brim)], (170, 40, 40))
        head.ellipse(x, brim, width * 1.42, 0.036, (58, 38, 27))
    elif shot.accessory == "glasses":
        y, radius_x, radius_y = f.eye_y + 0.006, min(0.102, f.eye_distance - 0.012), 0.080
        for side in (-1, 1):
            lens = ellipse(f.feature_x + side * f.eye_distance, y, radius_x, radius_y)
            head.line(np.concatenate([lens, lens[:2]]), _DARK, 0.019)
            head.line([(f.feature_x + side * (f.eye_distance + radius_x), y - 0.008), (x + side * width, y - 0.02)], _DARK, 0.016)
        bridge = f.eye_distance - radius_x
        head.line([(f.feature_x - bridge - 0.004, y - 0.01), (f.feature_x + bridge + 0.004, y - 0.01)], _DARK, 0.016)
    elif shot.accessory == "headphones":
        band = [(x + np.cos(t) * (width + 0.045), f.y - 0.02 + np.sin(t) * (f.up + 0.03)) for t in np.linspace(np.pi, 2 * np.pi, 15)]
        head.line(band, (45, 48, 55), 0.038)
        for side in (-1, 1):
            head.ellipse(x + side * (width + 0.030), f.y + 0.02, 0.052, 0.095, (45, 48, 55))
            head.ellipse(x + side * (width + 0.052), f.y + 0.02, 0.026, 0.064, (60, 190, 200))
