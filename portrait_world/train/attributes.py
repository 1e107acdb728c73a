"""Trains the attribute judge: scene, colour, garment, expression, accessory and style, from renders."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..networks.autoencoder import to_tensor
from ..networks.recognizer import AttributeJudge
from .dataset import entries, pictures
from .recognizer import augment
from .session import Schedule, Session

SCHEDULE = Schedule(steps=900, rate=2e-3, warmup=60, weight_decay=5e-4, seed=3)
BATCH = 64


def train() -> AttributeJudge:
    """The attribute judge; expressions are its hardest part and count double."""
    torch.manual_seed(SCHEDULE.seed)
    model = AttributeJudge().to(memory_format=torch.channels_last)
    store, listed = pictures("unnamed"), entries("unnamed")
    labels = torch.tensor([entry.shot().labels() for entry in listed])
    session = Session("attributes", {"model": model}, SCHEDULE)

    def loss() -> tuple[Tensor, dict[str, float]]:
        rows = np.sort(session.rng.integers(len(store), size=BATCH))
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(augment(to_tensor(store[rows])))
        wanted = labels[torch.from_numpy(rows)]
        losses = [nn.functional.cross_entropy(part.float(), wanted[:, k]) for k, part in enumerate(logits)]
        hits = [(part.argmax(1) == wanted[:, k]).float().mean() for k, part in enumerate(logits)]
        return sum(losses) + losses[3], {"accuracy": float(torch.stack(hits).mean())}

    model.train()
    session.run(loss)
    model.eval()
    return model
