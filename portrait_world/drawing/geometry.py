"""Where a face's features lie: a person's traits and a shot's expression and turn → numbers in the unit square.

The face fills most of the frame, and eyes, brows, nose and mouth are drawn large: at 128 pixels an eye spans two to
three cells of the f8 latent, which is what lets the small autoencoder carry identity.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..world.people import Person
from ..world.portrayal import Shot

CENTRE_X, CENTRE_Y = 0.5, 0.49


@dataclass(frozen=True)
class FaceGeometry:
    """All lengths in widths of the frame, before tilt and zoom (Canvas applies those).

    x, y: the centre of the head; feature_x: of the features, moved by the turn of the head; nose_x further still.
    """

    x: float
    y: float
    feature_x: float
    nose_x: float
    half_width: float
    up: float
    down: float
    jaw_power: float
    taper: float
    ear: float
    eye_y: float
    eye_distance: float
    eye_width: float
    eye_opening: float
    eye_tilt: float
    iris: float
    brow_y: float
    brow_thickness: float
    brow_arch: float
    brow_slope: float
    nose_y: float
    nose_width: float
    mouth_y: float
    mouth_width: float
    lip: float
    hairline: float

    def landmarks(self) -> np.ndarray:
        """(5, 2) left eye, right eye, nose tip, left and right mouth corner, as seen by the viewer."""
        return np.array([
            (self.feature_x - self.eye_distance, self.eye_y), (self.feature_x + self.eye_distance, self.eye_y),
            (self.nose_x, self.nose_y),
            (self.feature_x - self.mouth_width, self.mouth_y), (self.feature_x + self.mouth_width, self.mouth_y),
        ])

    def box(self) -> np.ndarray:
        """(4, 2) corners of the face from hairline to chin, ear to ear without the ears."""
        left, right = self.x - self.half_width, self.x + self.half_width
        top, bottom = self.y - self.up, self.y + self.down
        return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def face_geometry(who: Person, shot: Shot) -> FaceGeometry:
    """Measure one face in one shot."""
    opening = {"surprised": 1.3, "smiling": 0.88, "angry": 0.76, "sad": 0.86}.get(shot.expression, 1.0)
    eye_width = who.between("eye_size", 0.055, 0.085)
    eye_opening = eye_width * who.between("eye_opening", 0.46, 0.80) * opening
    raised = 0.03 if shot.expression == "surprised" else 0.0
    up = who.between("skull_height", 0.275, 0.315)
    y, turn = CENTRE_Y, shot.yaw * 0.022
    eye_y = y - 0.025
    nose_y = eye_y + who.between("nose_length", 0.105, 0.165)
    return FaceGeometry(
        x=CENTRE_X, y=y, feature_x=CENTRE_X + turn, nose_x=CENTRE_X + turn * 1.6,
        half_width=who.between("face_width", 0.235, 0.310), up=up, down=who.between("jaw_height", 0.295, 0.345),
        jaw_power=who.between("jaw_shape", 1.75, 3.2), taper=who.between("taper", 0.02, 0.28),
        ear=who.between("ear_size", 0.038, 0.075),
        eye_y=eye_y, eye_distance=who.between("eye_distance", 0.092, 0.142), eye_width=eye_width, eye_opening=eye_opening,
        eye_tilt=who.between("eye_tilt", -0.28, 0.28),
        iris=min(eye_width * who.between("iris_size", 0.48, 0.66), eye_opening * 1.0),
        brow_y=eye_y - eye_opening - who.between("brow_height", 0.032, 0.070) - raised,
        brow_thickness=who.between("brow_thickness", 0.014, 0.042), brow_arch=who.between("brow_arch", -0.006, 0.044),
        brow_slope={"angry": -0.62, "sad": 0.55}.get(shot.expression, 0.0),
        nose_y=nose_y, nose_width=who.between("nose_width", 0.028, 0.066),
        mouth_y=y + who.between("mouth_height", 0.190, 0.225), mouth_width=who.between("mouth_width", 0.066, 0.122),
        lip=who.between("lip_fullness", 0.011, 0.034),
        hairline=y - up + who.between("hairline", 0.05, 0.125),
    )
