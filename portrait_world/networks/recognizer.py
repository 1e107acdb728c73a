"""Who is it? Two recognizers that share nothing: the one methods may condition on, and the judge that only judges.

``Recognizer`` is ArcFace-style: an aligned 112×112 face → 512 numbers; it ships as ONNX inside the face pack. ``Judge``
has another architecture, seed and input (the whole picture), learned from other people, and is never trained against.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH = 512


def _stage(n_in: int, n_out: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]


class Recognizer(nn.Module):
    """(B, 3, 112, 112) RGB in -1..1 → (B, 512), not normalised."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            *_stage(3, 24, 2), *_stage(24, 48, 2), *_stage(48, 48, 1), *_stage(48, 72, 2), *_stage(72, 72, 1),
            *_stage(72, 104, 2), *_stage(104, 104, 1),
        )
        self.squeeze = nn.Sequential(nn.Conv2d(104, 9, 1), nn.BatchNorm2d(9), nn.ReLU())  # keeps where things are
        self.head = nn.Sequential(nn.Linear(9 * 49, WIDTH), nn.BatchNorm1d(WIDTH))

    def forward(self, faces: Tensor) -> Tensor:
        return self.head(self.squeeze(self.body(faces)).flatten(1))


class Judge(nn.Module):
    """(B, 3, 128, 128) portraits in -1..1 → (B, 512), not normalised. Looks at the middle 104 × 104 pixels."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            *_stage(12, 32, 1), *_stage(32, 32, 1), nn.MaxPool2d(2), *_stage(32, 64, 1), nn.MaxPool2d(2),
            *_stage(64, 96, 1), nn.MaxPool2d(2), *_stage(96, 96, 1),
        )
        self.squeeze = nn.Sequential(nn.Conv2d(96, 12, 1), nn.BatchNorm2d(12), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(12 * 36, WIDTH), nn.BatchNorm1d(WIDTH))

    def forward(self, portraits: Tensor) -> Tensor:
        middle = portraits[:, :, 8:112, 12:116]
        folded = nn.functional.pixel_unshuffle(middle, 2)  # (B, 12, 52, 52)
        return self.head(self.squeeze(self.body(folded)).flatten(1))


class AttributeJudge(nn.Module):
    """(B, 3, 128, 128) portraits in -1..1 → six tensors of logits, in the order of shot.ATTRIBUTES."""

    def __init__(self):
        super().__init__()
        from ..world.portrayal import ATTRIBUTES

        self.sizes = [len(words) for words in ATTRIBUTES.values()]
        self.body = nn.Sequential(
            *_stage(12, 24, 1), nn.MaxPool2d(2), *_stage(24, 48, 1), nn.MaxPool2d(2), *_stage(48, 64, 1), nn.MaxPool2d(2),
            *_stage(64, 64, 1),
        )
        self.squeeze = nn.Sequential(nn.Conv2d(64, 16, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(16 * 64, 96), nn.ReLU(), nn.Linear(96, sum(self.sizes)))

    def forward(self, portraits: Tensor) -> tuple[Tensor, ...]:
        features = self.squeeze(self.body(nn.functional.pixel_unshuffle(portraits, 2)))
        return self.head(features.flatten(1)).split(self.sizes, 1)


def margin_loss(embeddings: Tensor, centres: Tensor, labels: Tensor, margin: float = 0.2, scale: float = 24.0) -> Tensor:
    """ArcFace's additive angular margin: (B, 512), (people, 512), (B,) → scalar cross entropy."""
    cosine = nn.functional.normalize(embeddings, dim=1) @ nn.functional.normalize(centres, dim=1).T
    own = cosine.gather(1, labels[:, None]).clamp(-0.999, 0.999)
    logits = cosine.scatter(1, labels[:, None], torch.cos(torch.acos(own) + margin))
    return nn.functional.cross_entropy(logits * scale, labels)
