"""Photographs as training pictures: cropped square around the face, resized."""
from __future__ import annotations

from typing import Sequence

import torch
from torch import Tensor

from ..errors import BadImageError
from ..faces.photo import check_photo, photo_key
from ..identity.enhanced import EnhancedIdentity

LATENT_FACTOR = 8  # pixels per latent cell in every supported family


def prepare_photos(photos: Sequence[Tensor], resolution: int, masks: Sequence[Tensor] | None = None) -> Tensor:
    """(H, W, 1 | 3 | 4) pictures in 0..1, of any sizes → (P, R, R, 3) float32.

    The largest square is taken, so that no part of a face is squeezed: around the face as far as the picture reaches, else from the middle.

    Args:
        masks: where the face is, as :func:`prepare_masks` takes them; None = not known.

    Raises:
        BadImageError: no picture, a picture too small or not finite, or a resolution that is no multiple of 8.
    """
    if resolution < 64 or resolution % LATENT_FACTOR:
        raise BadImageError(f"The resolution is {resolution}, expected a multiple of {LATENT_FACTOR} from 64 on. Change resolution in the Train node.")
    if not photos:
        raise BadImageError("There is no photograph to train on. Connect one to image of the Train node.")
    checked = [check_photo(photo, f"Photograph {i}") for i, photo in enumerate(photos, 1)]
    centres = [_middle(photo.shape) for photo in checked] if masks is None else [_centre(mask) for mask in masks]
    return torch.stack([_square(photo, resolution, centre) for photo, centre in zip(checked, centres, strict=True)])


def found_masks(enhanced: EnhancedIdentity, photos: Sequence[Tensor]) -> list[Tensor] | None:
    """The mask that was found in each of the photographs (H, W, 3) of :func:`check_photo`, in any order; None unless all of them have one."""
    found, keys = dict(zip(enhanced.photographs, enhanced.masks)), [photo_key(photo) for photo in photos]
    return [found[key] for key in keys] if found.keys() >= set(keys) else None


def prepare_masks(masks: Sequence[Tensor], photos: Sequence[Tensor], resolution: int, shown: Sequence[Tensor] | None = None) -> Tensor:
    """Face masks (H, W) in 0..1, one per photograph, in their order and of their sizes → (P, R/8, R/8): what part of each latent cell is face.

    A mask does not know whose it is: two of one size that changed places cannot be told apart.

    Args:
        shown: other masks (H, W), to be cut around the same faces and given in their place.

    Raises:
        BadImageError: another number of masks than of photographs, a mask of another size than its photograph, or one in which nothing is marked.
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
        if not mask.any():
            raise BadImageError(f"Face mask {number} is empty, expected the face of photograph {number} in it. {mend}")
        cut = mask if shown is None else shown[number - 1].float().clamp(0.0, 1.0)
        square = _square(cut[:, :, None], resolution, _centre(mask))[:, :, 0]
        cells.append(torch.nn.functional.avg_pool2d(square[None], LATENT_FACTOR)[0])
    return torch.stack(cells)


def _middle(shape: Sequence[int]) -> tuple[float, float]:
    return shape[0] / 2, shape[1] / 2


def _centre(mask: Tensor) -> tuple[float, float]:
    """Row and column of the middle of what a mask (H, W) marks; of the picture, where it marks nothing."""
    weights = mask.float().clamp(0.0, 1.0)
    if not weights.any():
        return _middle(mask.shape)
    rows, columns = weights.sum(1), weights.sum(0)
    middle = lambda sums: float((sums * (torch.arange(len(sums), device=sums.device) + 0.5)).sum() / sums.sum())
    return middle(rows), middle(columns)


def _square(photo: Tensor, side: int, centre: tuple[float, float]) -> Tensor:
    """The largest square of a picture (H, W, C), its middle as near to ``centre`` as the edges allow → (side, side, C)."""
    size = min(photo.shape[:2])
    top, left = (min(max(round(middle - size / 2), 0), length - size) for middle, length in zip(centre, photo.shape[:2]))
    square = photo[top : top + size, left : left + size].permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(square, size=(side, side), mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0).clamp(0.0, 1.0)
