"""Which pixels are face: a soft ellipse from a box and five landmarks."""
from __future__ import annotations

from typing import Sequence

import torch
from torch import Tensor

# Proportions of an adult face, in distances between the eyes (across) and from the eyes to the mouth (along): the chin lies 0.75
# below the mouth, the hairline about 1.1 above the eyes; a cheek ends 1.15 beside the nose.
_CENTRE = 0.33
_ALONG = 1.42
_ACROSS = 1.15
_STRIP = 1 << 13  # pixels that are drawn at a time
_SOFT_FROM, _SOFT_TO = 0.9, 1.15  # of the ellipse's radius: inside 1, outside 0, smooth between


def face_masks(boxes: Tensor, landmarks: Tensor, sizes: Sequence[tuple[int, int]]) -> tuple[Tensor, ...]:
    """:func:`face_mask` of several faces: (F, 4), (F, 5, 2) and the height and width of each one's photograph → F masks; those of
    photographs of one size lie one behind another in memory, as in a batch."""
    if len(set(sizes)) == 1:
        masks = list(torch.zeros(len(sizes), *sizes[0]))
    else:
        masks = [torch.zeros(size) for size in sizes]
    for mask, box, points in zip(masks, boxes, landmarks):
        _draw(mask, box, points)
    return tuple(masks)


def face_mask(box: Tensor, landmarks: Tensor, height: int, width: int) -> Tensor:
    """A soft mask of one face, turned with its eyes.

    Args:
        box: (4,) x1 y1 x2 y2 in pixels; keeps the ellipse wide enough where a turned head brings the eyes together.
        landmarks: (5, 2) left eye, right eye, nose, left and right mouth corner, in pixels.
        height, width: size of the photograph.

    Returns:
        (height, width) float32 in 0..1.
    """
    mask = torch.zeros(height, width)
    _draw(mask, box, landmarks)
    return mask


def _draw(mask: Tensor, box: Tensor, landmarks: Tensor) -> None:
    """The ellipse on an empty mask. Only the square around it is touched: zeros that nobody touched take no memory, and a photograph may have
    fifty million."""
    box, landmarks = box.float().cpu(), landmarks.float().cpu()
    eyes, mouth = landmarks[:2].mean(0), landmarks[3:].mean(0)
    down = mouth - eyes
    length = down.norm()
    if length < 1e-3:  # no direction to be had: upright, as large as the box
        down, length = torch.tensor([0.0, 1.0]), (box[3] - box[1]).clamp_min(1.0) / 2.85
    else:
        down = down / length
    across = torch.stack([down[1], -down[0]])
    side = (box[2:] - box[:2]).clamp_min(1.0).min()
    along_radius = (_ALONG * length).clamp_min(1.0)
    # A face is never much narrower than its box, nor wider than it is long.
    across_radius = torch.maximum(_ACROSS * (landmarks[1] - landmarks[0]).norm(), 0.42 * side).clamp(max=float(along_radius))
    centre = eyes + _CENTRE * length * down
    reach = _SOFT_TO * float(torch.maximum(along_radius, across_radius)) + 1
    rows, columns = (_span(middle, reach, length) for middle, length in zip(centre.tolist()[::-1], mask.shape))
    x = torch.arange(columns.start, columns.stop, dtype=torch.float32)[None, :] + 0.5 - centre[0]
    strip = max(1, _STRIP // max(1, x.numel()))
    for first in range(rows.start, rows.stop, strip):
        last = min(first + strip, rows.stop)
        y = torch.arange(first, last, dtype=torch.float32)[:, None] + 0.5 - centre[1]
        radius = torch.hypot((x * across[0] + y * across[1]) / across_radius, (x * down[0] + y * down[1]) / along_radius)
        fade = ((_SOFT_TO - radius) / (_SOFT_TO - _SOFT_FROM)).clamp_(0.0, 1.0)
        mask[first:last, columns] = fade * fade * (3.0 - 2.0 * fade)


def _span(middle: float, reach: float, length: int) -> slice:
    """The pixels within ``reach`` of ``middle``, as far as there are any."""
    first = min(max(int(middle - reach), 0), length)
    return slice(first, max(first, min(int(middle + reach) + 1, length)))


# Where hair is, in radii of the face's ellipse: the crown lies 0.5 above the hairline, hair stands 0.45 beside the cheeks and falls to the chin.
_HEAD_UP = 0.25  # how far the head's middle lies above the face's
_HEAD_ALONG, _HEAD_ACROSS = 1.3, 1.45
_RIM = 0.35  # the width of the soft rim: hair ends nowhere in particular


def with_hair(face: Tensor) -> Tensor:
    """The head with its hair around a face: the face's ellipse, taken from the mask's own middle and spread, made wider and moved up.

    Args:
        face: (H, W) in 0..1, as :func:`face_mask` or anybody draws it; of an upright picture, for up is where y is small.

    Returns:
        (H, W) float32 in 0..1, nowhere less than ``face``.
    """
    face = face.float().clamp(0.0, 1.0)
    total = face.sum()
    if total <= 0:
        return face
    rows = torch.arange(face.shape[0], dtype=torch.float32, device=face.device) + 0.5
    columns = torch.arange(face.shape[1], dtype=torch.float32, device=face.device) + 0.5
    y, x = (face.sum(1) @ rows) / total, (face.sum(0) @ columns) / total
    rows, columns = rows - y, columns - x
    across = (face.sum(0) @ columns.square()) / total
    down = (face.sum(1) @ rows.square()) / total
    both = (rows @ face @ columns) / total
    # A filled ellipse has a quarter of its squared radius as variance along each of its axes.
    variances, axes = torch.linalg.eigh(torch.stack([torch.stack([across, both]), torch.stack([both, down])]))
    short, long = (2 * variances.clamp_min(0.25).sqrt()).tolist()
    along = axes[:, 1] if axes[1, 1] >= 0 else -axes[:, 1]  # x, y of the face's long axis, towards the chin
    u = columns[None, :] * along[0] + rows[:, None] * along[1] + _HEAD_UP * long
    v = columns[None, :] * along[1] - rows[:, None] * along[0]
    radius = torch.hypot(u / (_HEAD_ALONG * long), v / (_HEAD_ACROSS * short))
    fade = ((1 + _RIM / 2 - radius) / _RIM).clamp(0.0, 1.0)
    return torch.maximum(fade * fade * (3.0 - 2.0 * fade), face)
