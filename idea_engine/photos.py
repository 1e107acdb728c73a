"""Photographs as training pictures: checked, cropped square, resized."""
from __future__ import annotations

import logging
from typing import Sequence

import torch
from torch import Tensor

from .errors import BadImageError
from .fingerprint import content_key
from .types import EnhancedIdentity

MIN_SIDE = 16  # below this there is nothing to learn
LATENT_FACTOR = 8  # pixels per latent cell in every supported family
_CUT = 0.5  # share of a face outside the centred square from which on the artist is told
_log = logging.getLogger(__name__)


def photo_key(photo: Tensor) -> str:
    """Names a photograph (H, W, 3) of :func:`check_photo` by its pixels, so that what was found in it is not taken for another's."""
    return content_key(photo)


def prepare_photos(photos: Sequence[Tensor], resolution: int) -> Tensor:
    """(H, W, 1 | 3 | 4) pictures in 0..1, of any sizes → (P, R, R, 3) float32.

    The largest centred square is taken: faces of portraits lie near the middle, and no part of a face is squeezed.

    Raises:
        BadImageError: no picture, a picture too small or not finite, or a resolution that is no multiple of 8.
    """
    if resolution < 64 or resolution % LATENT_FACTOR:
        raise BadImageError(f"The resolution is {resolution}, expected a multiple of {LATENT_FACTOR} from 64 on. Change resolution in the Train node.")
    if not photos:
        raise BadImageError("There is no photograph to train on. Connect one to image of the Train node.")
    return torch.stack([_square(check_photo(photo, f"Photograph {i}"), resolution) for i, photo in enumerate(photos, 1)])


def found_masks(enhanced: EnhancedIdentity, photos: Sequence[Tensor]) -> list[Tensor] | None:
    """The mask that was found in each of the photographs (H, W, 3) of :func:`check_photo`, in any order; None unless all of them have one."""
    found, keys = dict(zip(enhanced.photographs, enhanced.masks)), [photo_key(photo) for photo in photos]
    return [found[key] for key in keys] if found.keys() >= set(keys) else None


def prepare_masks(masks: Sequence[Tensor], photos: Sequence[Tensor], resolution: int) -> Tensor:
    """Face masks (H, W) in 0..1, one per photograph, in their order and of their sizes → (P, R/8, R/8): what part of each latent cell is face.

    A mask does not know whose it is: two of one size that changed places cannot be told apart.

    Raises:
        BadImageError: another number of masks than of photographs, a mask of another size than its photograph, or one that marks nothing of
            what is learned from.
    """
    mend = "Connect masks of the Face Embed node that saw the same photographs, or none, to masks of the Train node."
    skipped = " Where on_missing is skip it has none for a photograph without a face; leave that out here too." if 0 < len(masks) < len(photos) else ""
    if len(masks) != len(photos):
        raise BadImageError(f"There are {len(masks)} face masks for {len(photos)} photographs, expected one each, in their order. {mend}{skipped}")
    cells = []
    for number, (mask, photo) in enumerate(zip(masks, photos), 1):
        if mask.shape != photo.shape[:2]:
            raise BadImageError(
                f"Face mask {number} is {mask.shape[-1]}×{mask.shape[-2]} pixels, its photograph {photo.shape[1]}×{photo.shape[0]}, expected the same. {mend}"
            )
        mask = mask.float().clamp(0.0, 1.0)
        square = _square(mask[:, :, None], resolution)[:, :, 0]
        if not square.any():
            raise BadImageError(
                f"Face mask {number} marks nothing in the largest centred square of its photograph, and nothing else is learned from. "
                "Crop the photograph around the face before Face Embed, or leave it out."
            )
        inside = float(square.mean() * min(photo.shape[:2]) ** 2 / mask.sum())
        if inside < _CUT:
            _log.warning("Only %d %% of the face in photograph %d lies in the photograph's largest centred square, which is learned from. "
                         "Crop the photograph around the face.", round(100 * inside), number)
        cells.append(torch.nn.functional.avg_pool2d(square[None], LATENT_FACTOR)[0])
    return torch.stack(cells)


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
    if not torch.isfinite(photo).all():
        raise BadImageError(f"{name} holds pixels that are not finite (NaN or infinite). Look at the node that made it.")
    photo = photo.expand(-1, -1, 3) if photo.shape[-1] == 1 else photo[..., :3]
    return photo.clamp(0.0, 1.0)


def _square(photo: Tensor, side: int) -> Tensor:
    height, width = photo.shape[:2]
    size = min(height, width)
    top, left = (height - size) // 2, (width - size) // 2
    square = photo[top : top + size, left : left + size].permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(square, size=(side, side), mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0).clamp(0.0, 1.0)
