"""Where a face sits: the five-point alignment that every ArcFace-family recognizer was trained on."""
from __future__ import annotations

import numpy as np

CROP_SIZE = 112  # input side of the ArcFace family

# The reference positions of left eye, right eye, nose and the two mouth corners in a 112×112 crop, in pixels; published with ArcFace
# (arXiv 1801.07698) and used by insightface to align its training data.
ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], dtype=np.float32
)


def similarity_to_template(landmarks: np.ndarray) -> np.ndarray:
    """The rotation, scale and shift that bring five landmarks closest to the template (Umeyama 1991, no mirroring).

    Args:
        landmarks: (5, 2) float, in pixels of the photograph.

    Returns:
        (2, 3) float32 matrix: photograph → crop.
    """
    source, target = landmarks.astype(np.float32), ARCFACE_TEMPLATE
    centre, goal = source.mean(0), target.mean(0)
    x, y = (source - centre).T
    u, v = (target - goal).T
    spread = max(float((x * x + y * y).sum()), 1e-6)  # five identical points: a finite matrix, an empty crop
    cosine, sine = float((x * u + y * v).sum()) / spread, float((x * v - y * u).sum()) / spread
    turn = np.array([[cosine, -sine], [sine, cosine]], dtype=np.float32)
    return np.concatenate([turn, (goal - turn @ centre)[:, None]], axis=1)


def align_face(picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Cut one face out, upright and at the recognizer's scale.

    Args:
        picture: (H, W, 3) uint8.
        landmarks: (5, 2), in pixels of the picture, whatever way the face is turned.

    Returns:
        (112, 112, 3) uint8 in the picture's own channel order; black outside the picture.
    """
    import cv2

    return cv2.warpAffine(picture, similarity_to_template(landmarks), (CROP_SIZE, CROP_SIZE), borderValue=0)
