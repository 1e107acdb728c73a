"""Trains the detector on portraits pasted at all sizes onto scenes, noise and plain colours, and on pictures with no face."""
from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from ..drawing.portrait import face_box, landmarks
from ..networks.detector import INPUT_MEAN, INPUT_STD, RANGES, STRIDES, Detector, cell_centres
from ..world.people import person
from .dataset import entries, pictures
from .session import Schedule, Session

SCHEDULE = Schedule(steps=1150, rate=2e-3, warmup=60, weight_decay=5e-4, seed=8)
BATCH = 16
INPUTS = (128, 320, 640)  # the sizes people set; insightface's own defaults are 128 and 640


class Canvases:
    """Random detector inputs with their boxes and landmarks."""

    def __init__(self, rng: np.random.Generator):
        self._rng, self._store, self._entries = rng, pictures("unnamed"), entries("unnamed")

    def draw(self, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(size, size, 3) uint8 canvas, (4,) box and (5, 2) landmarks in pixels; a box of NaN when there is no face."""
        rng = self._rng
        row = int(rng.integers(len(self._store)))
        entry, picture = self._entries[row], self._store[row]
        canvas = self._background(size)
        if rng.uniform() < 0.15:
            return canvas, np.full(4, np.nan), np.full((5, 2), np.nan)
        # half of the time the portrait fills the input, as when it is the whole picture
        side = size if rng.uniform() < 0.5 else int(rng.uniform(0.3, 1.0) * size)
        x, y = (int(v) for v in rng.integers(0, size - side + 1, size=2))
        canvas[y:y + side, x:x + side] = cv2.resize(picture, (side, side), interpolation=cv2.INTER_LINEAR)
        who, shot = person(entry.split, entry.index), entry.shot()
        offset = np.array([x, y], float)
        return canvas, face_box(who, shot) * side + np.tile(offset, 2), landmarks(who, shot) * side + offset

    def _background(self, size: int) -> np.ndarray:
        rng = self._rng
        kind = rng.integers(4)
        if kind == 0:
            return np.zeros((size, size, 3), np.uint8)  # insightface pads with black
        if kind == 1:
            return np.full((size, size, 3), rng.integers(0, 256, 3), np.uint8)
        if kind == 2:
            small = rng.integers(0, 256, (int(rng.integers(2, 20)),) * 2 + (3,)).astype(np.uint8)
            return cv2.resize(small, (size, size))
        corner = self._store[int(rng.integers(len(self._store)))][:40, :30]  # scene without a face
        return cv2.resize(corner, (size, size))


def train() -> Detector:
    """The detector, ready for export."""
    torch.manual_seed(SCHEDULE.seed)
    model = Detector()
    session = Session("detector", {"model": model}, SCHEDULE)
    canvases = Canvases(session.rng)

    def loss() -> tuple[Tensor, dict[str, float]]:
        size = int(session.rng.choice(INPUTS, p=(0.3, 0.4, 0.3)))
        drawn = [canvases.draw(size) for _ in range(BATCH if size < 640 else BATCH // 2)]
        pixels = torch.from_numpy(np.stack([d[0] for d in drawn])).permute(0, 3, 1, 2).float()
        pixels = ((pixels - INPUT_MEAN) / INPUT_STD + torch.randn_like(pixels) * 0.03) * torch.empty(len(drawn), 1, 1, 1).uniform_(0.8, 1.2)
        boxes = torch.from_numpy(np.stack([d[1] for d in drawn])).float()
        points = torch.from_numpy(np.stack([d[2] for d in drawn])).float()
        return detection_loss(model.raw(pixels), boxes, points, size)

    model.train()
    session.run(loss)
    model.eval()
    return model


def detection_loss(raw: list[Tensor], boxes: Tensor, points: Tensor, size: int) -> tuple[Tensor, dict[str, float]]:
    """Focal loss on scores, smooth L1 on distances and landmarks where the face's middle is. One face per picture at most."""
    present = ~boxes[:, 0].isnan()
    boxes, points = torch.nan_to_num(boxes), torch.nan_to_num(points)
    middle, extent = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    scores, geometry, found = 0.0, 0.0, 0
    for out, stride, (low, high) in zip(raw, STRIDES, RANGES):
        centres = cell_centres(size, size, stride)
        near = ((centres[None] - middle[:, None]).abs() / extent[:, None].clamp(min=1)).amax(2)  # (B, N) 0 at the middle
        mine = present & (extent[:, 1] >= low) & (extent[:, 1] < high)
        positive = (near < 0.14) & mine[:, None]
        # small faces may miss every corner: the nearest one answers then
        nearest = torch.zeros_like(positive).scatter_(1, near.argmin(1, keepdim=True), True) & mine[:, None]
        positive = positive | nearest
        # Around the middle either answer will do, but only for strides about as coarse as the face: the others must stay
        # silent, or one large face is found once per stride.
        about = present & (extent[:, 1] >= low * 0.8) & (extent[:, 1] < high * 1.25)
        ignored = (near < 0.30) & about[:, None] & ~positive
        probability = out[..., 0].sigmoid()
        right = torch.where(positive, probability, 1 - probability)
        balance = torch.where(positive, 1.0, 0.3)
        focal = -(1 - right) ** 2 * right.clamp(min=1e-6).log() * balance
        scores = scores + focal[~ignored].sum()
        if positive.any():
            picture, cell = positive.nonzero(as_tuple=True)
            at = centres[cell]
            wanted = torch.cat([at - boxes[picture, :2], boxes[picture, 2:] - at], 1).clamp(min=0) / stride
            wanted_points = (points[picture] - at[:, None]).flatten(1) / stride
            error = nn.functional.smooth_l1_loss(out[positive][:, 1:5], wanted, reduction="none").sum(1)
            error = error + 2 * nn.functional.smooth_l1_loss(out[positive][:, 5:], wanted_points, reduction="none").sum(1) / 2.5
            geometry = geometry + error.sum()
            found += len(picture)
    total = (scores + 0.3 * geometry) / max(1, found)
    return total, {"geometry": float(torch.as_tensor(geometry).detach()) / max(1, found)}
