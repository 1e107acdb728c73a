"""A photograph as a tensor: checked, and named by its pixels."""
from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..errors import BadImageError
from ..files.fingerprint import content_key

MIN_SIDE = 16  # below this there is nothing to learn
_ROWS = 8  # of a photograph that are converted at a time


def photo_key(photo: Tensor) -> str:
    """Names a photograph (H, W, 3) of :func:`check_photo` by its pixels, so that what was found in it is not taken for another's."""
    return content_key(photo)


def check_photo(photo: Tensor, name: str) -> Tensor:
    """(H, W, C) → (H, W, 3) float32 in 0..1: grey is repeated, transparency is dropped.

    Raises:
        BadImageError: with a sentence that starts with ``name``.
    """
    if photo.ndim != 3 or photo.shape[-1] not in (1, 3, 4):
        raise BadImageError(f"{name} has the shape {tuple(photo.shape)}, expected height × width × 1, 3 or 4 channels.")
    if min(photo.shape[:2]) < MIN_SIDE:
        raise BadImageError(f"{name} is {photo.shape[1]}×{photo.shape[0]} pixels, expected at least {MIN_SIDE} a side. Load a larger photograph.")
    photo = photo.float()
    least, most = (float(value) for value in photo.aminmax())  # NaN if any pixel is; a large photograph is not copied to look at it
    if not (math.isfinite(least) and math.isfinite(most)):
        raise BadImageError(f"{name} holds pixels that are not finite (NaN or infinite). Look at the node that made it.")
    photo = photo.expand(-1, -1, 3) if photo.shape[-1] == 1 else photo[..., :3]
    return photo.clamp(0.0, 1.0) if least < 0.0 or most > 1.0 else photo


def to_pixels(photo: Tensor) -> np.ndarray:
    """(H, W, 3) in 0..1 → uint8, what detectors and recognizers were trained on; in strips, for a photograph may have half a gigabyte."""
    values = photo.detach().cpu().numpy()
    pixels = np.empty(values.shape, dtype=np.uint8)
    scaled = np.empty((_ROWS, *values.shape[1:]), dtype=np.float32)
    for top in range(0, len(values), _ROWS):
        strip = scaled[: len(values) - top]
        np.multiply(values[top : top + _ROWS], np.float32(255.0), out=strip)
        np.copyto(pixels[top : top + _ROWS], np.rint(strip, out=strip), casting="unsafe")
    return pixels


def small_copy(photo: Tensor, longest: int) -> Tensor:
    """A photograph (H, W, 3) to be looked at: no side longer than ``longest`` pixels; the photograph itself where none is."""
    if max(photo.shape[:2]) <= longest:
        return photo
    import cv2

    height, width = (max(1, round(side * longest / max(photo.shape[:2]))) for side in photo.shape[:2])
    return torch.from_numpy(cv2.resize(photo.cpu().numpy(), (width, height), interpolation=cv2.INTER_AREA))
