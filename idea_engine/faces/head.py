"""A second look at a person: the whole head with its hair, wider than the recognizer's crop, which ends at the forehead."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .align import CROP_SIZE, similarity_to_template
from .mask import face_mask

HEAD_SIZE = 64  # pixels: enough for hair, beard and skin; the features are the recognizer's business
REACH = 1.5  # of the recognizer's crop, around the same middle: a head with long hair
_MASK_REACH = 1.45  # of the face's ellipse: hair, ears and beard


def align_head(picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Cut one head out, upright.

    Args:
        picture: (H, W, 3) uint8.
        landmarks: (5, 2), in pixels of the picture, whatever way the face is turned.

    Returns:
        (64, 64, 3) uint8 in the picture's own channel order; outside the picture its border goes on.
    """
    import cv2

    fine = 2 * HEAD_SIZE  # then halved, so that hair keeps its tone
    to_crop = similarity_to_template(landmarks)
    scale = fine / (CROP_SIZE * REACH)
    to_head = to_crop * scale
    to_head[:, 2] += fine / 2 - scale * CROP_SIZE / 2
    wide = cv2.warpAffine(picture, to_head, (fine, fine), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cv2.resize(wide, (HEAD_SIZE, HEAD_SIZE), interpolation=cv2.INTER_AREA)


def head_mask(box: Tensor, landmarks: Tensor, height: int, width: int) -> Tensor:
    """A soft mask of face, hair, ears and beard: the ellipse of :func:`~idea_engine.faces.mask.face_mask`, larger.

    Args:
        box: (4,) x1 y1 x2 y2 and landmarks: (5, 2), in pixels.

    Returns:
        (height, width) float32 in 0..1.
    """
    centre = landmarks.float().mean(0)
    grow = lambda points: centre + (points.float() - centre) * _MASK_REACH  # noqa: E731
    return face_mask(grow(box.view(2, 2)).flatten(), grow(landmarks), height, width)


def as_pixels(heads: Tensor) -> Tensor:
    """(…, S, S, 3) uint8 or float in 0..1 → (…, 3, S, S) float32 in -1..1, as the network reads them."""
    pixels = heads.float() / 255 if heads.dtype == torch.uint8 else heads.float()
    return (pixels * 2 - 1).movedim(-1, -3)
