"""An SCRFD-style face detector: scores, boxes and five landmarks at strides 8, 16 and 32, in insightface's ONNX layout.

Portraits need little: the picture is averaged down four times before the first convolution, and everything after is small.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

STRIDES = (8, 16, 32)
ANCHORS = 2  # per cell, as insightface decodes them; both are trained alike
# Which face heights (in pixels of the network's input) each stride answers for.
RANGES = ((0, 90), (90, 200), (200, 100000))
INPUT_MEAN, INPUT_STD = 127.5, 128.0  # what insightface applies


def _block(n_in: int, n_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU())


class Detector(nn.Module):
    """(1 or B, 3, H, W) RGB, (x − 127.5) / 128, H and W multiples of 32 → nine tensors in insightface's order."""

    def __init__(self):
        super().__init__()
        self.shrink = nn.AvgPool2d(4)
        self.stem = _block(3, 16, 1)
        self.c8 = nn.Sequential(_block(16, 24, 2), _block(24, 24, 1))
        self.c16 = nn.Sequential(_block(24, 32, 2), _block(32, 32, 1))
        self.c32 = nn.Sequential(_block(32, 48, 2), _block(48, 48, 1))
        # a portrait at 640 pixels fills the picture: the middle must see as far as its edges
        self.context = nn.Sequential(_block(48, 48, 2), _block(48, 48, 1))
        self.wide = nn.Sequential(_block(48, 48, 2), _block(48, 48, 1))
        self.join16 = nn.Conv2d(48, 32, 1)
        self.join8 = nn.Conv2d(32, 24, 1)
        self.heads = nn.ModuleList(
            nn.Sequential(_block(width, width, 1), nn.Conv2d(width, ANCHORS * 15, 1)) for width in (24, 32, 48)
        )
        for head in self.heads:  # faces are rare: start with scores near 0
            nn.init.constant_(head[1].bias.data[:ANCHORS], -4.0)

    def raw(self, pixels: Tensor) -> list[Tensor]:
        """One (B, H/s · W/s · 2, 15) tensor per stride: score logit, 4 box distances, 5 × (dx, dy), in strides."""
        f8 = self.c8(self.stem(self.shrink(pixels)))
        f16 = self.c16(f8)
        f32 = self.c32(f16)
        f64 = self.context(f32)
        f32 = f32 + _grown(f64 + _grown(self.wide(f64), f64), f32)
        f16 = f16 + nn.functional.interpolate(self.join16(f32), scale_factor=2.0)
        f8 = f8 + nn.functional.interpolate(self.join8(f16), scale_factor=2.0)
        made = []
        for head, features in zip(self.heads, (f8, f16, f32)):
            out = head(features)
            scores, boxes, points = out.split([ANCHORS, ANCHORS * 4, ANCHORS * 10], 1)
            cells = lambda part, n: part.permute(0, 2, 3, 1).reshape(part.shape[0], -1, n)
            made.append(torch.cat([cells(scores, 1), nn.functional.softplus(cells(boxes, 4)), cells(points, 10)], 2))
        return made

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Scores (N, 1), boxes (N, 4) and landmarks (N, 10) of each stride, for a batch of one: the exported graph."""
        flat = [part.reshape(-1, 15) for part in self.raw(pixels)]
        return (
            *(part[:, :1].sigmoid() for part in flat), *(part[:, 1:5] for part in flat), *(part[:, 5:] for part in flat)
        )


def _grown(coarse: Tensor, fine: Tensor) -> Tensor:
    """Twice as many cells; an odd number had shrunk and would grow to one more, so it is cut to that of ``fine``."""
    return nn.functional.interpolate(coarse, scale_factor=2.0)[:, :, :fine.shape[2], :fine.shape[3]]


def cell_centres(height: int, width: int, stride: int) -> Tensor:
    """(H/s · W/s · 2, 2) x, y of every anchor: the cell's top left corner, as insightface has it."""
    y, x = torch.meshgrid(torch.arange(height // stride), torch.arange(width // stride), indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2).repeat_interleave(ANCHORS, 0).float() * stride
