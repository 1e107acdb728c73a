"""Trains the conditioning recognizer (aligned crops) and the judge (whole portraits), each on its own half of the people."""
from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from ..drawing.portrait import SIZE, landmarks
from ..networks.autoencoder import to_tensor
from ..networks.recognizer import WIDTH, Judge, Recognizer, margin_loss
from ..world.people import SPLITS, person
from .dataset import SHOTS_UNNAMED, entries, pictures
from .session import Schedule, Session

SCHEDULE = Schedule(steps=1300, rate=2e-3, warmup=60, weight_decay=5e-4, seed=1)
JUDGE_SCHEDULE = Schedule(steps=1300, rate=2e-3, warmup=60, weight_decay=5e-4, seed=77)
BATCH = 96
HALF = SPLITS["unnamed"] // 2  # the recognizer learns from the first half of the unnamed people, the judge from the second
LANDMARK_ERROR = 1.2  # pixels: a detector's landmarks are not the renderer's


def align(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 and (5, 2) landmarks in pixels → the (112, 112, 3) aligned face, as insightface crops it."""
    from insightface.utils.face_align import estimate_norm

    return cv2.warpAffine(picture, estimate_norm(np.float32(points), 112), (112, 112), borderValue=0.0)


def train() -> Recognizer:
    """The conditioning recognizer, on crops aligned with slightly wrong landmarks, as a detector's are."""
    torch.manual_seed(SCHEDULE.seed)
    model = Recognizer().to(memory_format=torch.channels_last)
    crops = _aligned_crops()
    _train("recognizer", model, SCHEDULE, lambda rows: crops[rows], first=0)
    return model


def train_judge() -> Judge:
    """The judge, on whole portraits of the other half of the people."""
    torch.manual_seed(JUDGE_SCHEDULE.seed)
    model = Judge().to(memory_format=torch.channels_last)
    store = pictures("unnamed")
    _train("judge", model, JUDGE_SCHEDULE, lambda rows: store[rows], first=HALF)
    return model


def _aligned_crops() -> np.ndarray:
    """(HALF · shots, 112, 112, 3) uint8: every picture of the first half of the people, aligned once."""
    listed, store, rng = entries("unnamed"), pictures("unnamed"), np.random.default_rng(5)
    crops = np.empty((HALF * SHOTS_UNNAMED, 112, 112, 3), np.uint8)
    for row in range(len(crops)):
        entry = listed[row]
        exact = landmarks(person(entry.split, entry.index), entry.shot()) * SIZE
        crops[row] = align(store[row], exact + rng.normal(size=(5, 2)) * LANDMARK_ERROR)
    return crops


def _train(name: str, model: nn.Module, schedule: Schedule, faces, first: int) -> None:
    centres = nn.Linear(WIDTH, HALF, bias=False)
    nn.init.normal_(centres.weight, std=0.05)
    session = Session(name, {"model": model, "centres": centres}, schedule)

    def loss() -> tuple[Tensor, dict[str, float]]:
        people = session.rng.choice(HALF, BATCH, replace=False)
        rows = np.sort((people + first) * SHOTS_UNNAMED + session.rng.integers(SHOTS_UNNAMED, size=BATCH))
        labels = torch.from_numpy(rows // SHOTS_UNNAMED - first)
        pixels = augment(to_tensor(faces(rows)))
        with torch.autocast("cpu", torch.bfloat16):
            embeddings = model(pixels)
        return margin_loss(embeddings.float(), centres.weight, labels), {}

    model.train()
    session.run(loss)
    model.eval()


def augment(pixels: Tensor) -> Tensor:
    """What cameras and generators do to a picture: blur, noise, brightness. (B, 3, H, W) in -1..1, same out."""
    if torch.rand(()) < 0.4:
        padded = nn.functional.pad(pixels, (1, 1, 1, 1), mode="reflect")
        pixels = nn.functional.avg_pool2d(padded, 3, 1)
    pixels = pixels + torch.randn_like(pixels) * (torch.rand(()) * 0.12)
    return pixels * torch.empty(len(pixels), 1, 1, 1).uniform_(0.88, 1.12)
