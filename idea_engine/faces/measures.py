"""What can be measured on one photographed face: size, sharpness, pose, exposure, covered parts. Numbers only; no judgement."""
from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .align import ARCFACE_TEMPLATE, CROP_SIZE, align_face, similarity_to_template
from .search import DetectedFace

# An average head's landmarks in space, in distances between the eyes: x to the right of the picture, y down, z towards the camera. Seen from
# the front they are the alignment template; the tip of the nose stands about half that distance before the eyes, the mouth's corners a seventh.
_DEPTH = np.array([[0.0], [0.0], [0.5], [0.15], [0.15]])
_HEAD = np.concatenate([(ARCFACE_TEMPLATE - ARCFACE_TEMPLATE.mean(0)) / (ARCFACE_TEMPLATE[1, 0] - ARCFACE_TEMPLATE[0, 0]), _DEPTH], axis=1)
_SHARPNESS_SIDE = 128  # pixels; the part of a face a recognizer can use, so a larger photograph is not called sharper
# Parts of the aligned crop, as x1 y1 x2 y2 in its 112 pixels around the template's landmarks.
PARTS = {"left eye": (24, 42, 52, 62), "right eye": (60, 42, 88, 62), "mouth": (38, 82, 74, 103)}
_CLIPPED_DARK, _CLIPPED_BRIGHT = 0.02, 0.98


@dataclass(frozen=True)
class FaceMeasures:
    """One face of one photograph in numbers.

    Attributes:
        size: side in pixels of a square as large as the face's box.
        sharpness: share of the fine detail (changes from pixel to pixel) in all contrast of the face, ≥ 0; blur takes it away.
        yaw, pitch, roll: degrees; turned, nodding, tilted. Estimated from five landmarks, good to about ten degrees.
        brightness: mean luminance of the face, 0..1.
        contrast: standard deviation of that luminance.
        clipped: share of the face that is pure black or pure white.
        detail: part (:data:`PARTS`) → deviation of its luminance relative to the whole face's; a covered part is plain.
        outside: share of the aligned face that lies outside the photograph.
        score: the detector's confidence, 0..1.
    """

    size: float
    sharpness: float
    yaw: float
    pitch: float
    roll: float
    brightness: float
    contrast: float
    clipped: float
    detail: dict[str, float]
    outside: float
    score: float


def measure_face(picture: np.ndarray, face: DetectedFace) -> FaceMeasures:
    """Measure one face.

    Args:
        picture: (H, W, 3) uint8 RGB, the whole photograph.
    """
    crop = _luminance(align_face(picture, face.landmarks))
    inside = align_face(np.full(picture.shape[:2], 255, dtype=np.uint8), face.landmarks) > 127
    # The middle of the crop: forehead to chin without hair and background.
    middle = np.zeros_like(inside)
    middle[36:106, 22:90] = True
    skin = crop[middle & inside]
    if not skin.size:
        skin = crop.reshape(-1)
    yaw, pitch, roll = head_pose(face.landmarks)
    spread = max(float(skin.std()), 1e-3)
    return FaceMeasures(
        size=math.sqrt(max(face.area, 0.0)),
        sharpness=_sharpness(picture, face),
        yaw=yaw, pitch=pitch, roll=roll,
        brightness=float(skin.mean()), contrast=float(skin.std()),
        clipped=float(((skin <= _CLIPPED_DARK) | (skin >= _CLIPPED_BRIGHT)).mean()),
        detail={name: float(crop[y1:y2, x1:x2].std()) / spread for name, (x1, y1, x2, y2) in PARTS.items()},
        outside=float(1.0 - inside.mean()),
        score=face.score,
    )


def head_pose(landmarks: np.ndarray) -> tuple[float, float, float]:
    """Yaw, pitch and roll in degrees from (5, 2) landmarks, by the nearest view of an average head under parallel light (weak perspective).

    Yaw is positive where the nose points to the right of the picture, pitch where it points down, roll where the head leans clockwise.
    """
    head = _HEAD - _HEAD.mean(0)
    seen = landmarks - landmarks.mean(0)
    camera, *_ = np.linalg.lstsq(head, seen.astype(np.float64), rcond=None)  # (3, 2): space → picture
    u, _, v = np.linalg.svd(camera.T, full_matrices=False)
    across, down = u @ v
    toward = np.cross(across, down)
    yaw = math.degrees(math.atan2(across[2], math.hypot(across[0], across[1])))
    pitch = math.degrees(math.atan2(down[2], toward[2]))
    roll = math.degrees(math.atan2(float(landmarks[1, 1] - landmarks[0, 1]), float(landmarks[1, 0] - landmarks[0, 0])))
    return yaw, pitch, roll


def _sharpness(picture: np.ndarray, face: DetectedFace) -> float:
    """Mean square of the Laplacian over the variance of the luminance, on the upright face at a common size.

    Faces smaller than that size are not enlarged, which would blur them: their size is measured by itself.
    """
    import cv2

    side = int(min(_SHARPNESS_SIDE, max(24.0, math.sqrt(max(face.area, 1.0)))))
    # Twice the crop's scale, then a true average down: a plain warp to a small crop would alias, and aliases look sharp.
    scale = max(1.0, math.sqrt(max(face.area, 1.0)) / CROP_SIZE)
    matrix = similarity_to_template(face.landmarks) * scale
    large = int(round(CROP_SIZE * scale))
    warped = cv2.warpAffine(picture, matrix, (large, large), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    grey = _luminance(cv2.resize(warped, (side, side), interpolation=cv2.INTER_AREA))
    edge = side // 6
    grey = grey[edge:-edge, edge:-edge]
    laplacian = cv2.Laplacian(grey, cv2.CV_32F)
    return float((laplacian**2).mean() / max(float(grey.var()), 1e-4))


def _luminance(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB → (H, W) float32 in 0..1 (Rec. 709 weights)."""
    return (picture.astype(np.float32) @ np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)) / 255.0
