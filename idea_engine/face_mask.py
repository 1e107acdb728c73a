"""Which pixels are face: a soft ellipse from a box and five landmarks."""
from __future__ import annotations

import torch
from torch import Tensor

# Proportions of an adult face, in distances between the eyes (across) and from the eyes to the mouth (along): the chin lies 0.75
# below the mouth, the hairline about 1.1 above the eyes; a cheek ends 1.15 beside the nose.
_CENTRE = 0.33
_ALONG = 1.42
_ACROSS = 1.15
_SOFT_FROM, _SOFT_TO = 0.9, 1.15  # of the ellipse's radius: inside 1, outside 0, smooth between


def face_mask(box: Tensor, landmarks: Tensor, height: int, width: int) -> Tensor:
    """A soft mask of one face, turned with its eyes.

    Args:
        box: (4,) x1 y1 x2 y2 in pixels; keeps the ellipse wide enough where a turned head brings the eyes together.
        landmarks: (5, 2) left eye, right eye, nose, left and right mouth corner, in pixels.
        height, width: size of the photograph.

    Returns:
        (height, width) float32 in 0..1.
    """
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
    rows = torch.arange(height, dtype=torch.float32)[:, None] + 0.5 - centre[1]
    columns = torch.arange(width, dtype=torch.float32)[None, :] + 0.5 - centre[0]
    radius = torch.hypot((columns * across[0] + rows * across[1]) / across_radius, (columns * down[0] + rows * down[1]) / along_radius)
    fade = ((_SOFT_TO - radius) / (_SOFT_TO - _SOFT_FROM)).clamp(0.0, 1.0)
    return fade * fade * (3.0 - 2.0 * fade)
