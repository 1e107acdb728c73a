"""What the ID-Enhancer learns from: thousands of people, each with photographs to know them by and other pictures to find them in.

Kept in shards of ``SHARD`` people in the cache folder; an interrupted rendering goes on with the next shard.
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..cache import cache_folder
from ..drawing.portrait import SIZE, face_box, landmarks, render
from ..world.people import person
from ..world.portrayal import Shot, photograph
from .dataset import shot_of
from .recognizer import LANDMARK_ERROR, align

SPLIT = "many"
PHOTOGRAPHS, PICTURES = 4, 4  # of each person: to know them by, and to find them in
SHARD = 500


@dataclass(frozen=True)
class ManyPeople:
    """N people.

    Attributes:
        vectors: (N, PHOTOGRAPHS, 512) the shipped recognizer's unit-length embeddings.
        heads: (N, PHOTOGRAPHS, S, S, 3) uint8, see :mod:`idea_engine.faces.head`.
        latents: (N, PICTURES, 4, 16, 16) float16, unit variance. masks: (N, PICTURES, 16, 16) uint8, 255 where the head is.
    """

    vectors: Tensor
    heads: Tensor
    latents: Tensor
    masks: Tensor

    def shot(self, index: int, number: int) -> Shot:
        """How picture ``number`` of person ``index`` was taken."""
        return shot_of(SPLIT, index, number)


def many_people(count: int) -> ManyPeople:
    """The first ``count`` people, rendered, embedded and encoded where they are not yet."""
    from safetensors.torch import load_file
    from tqdm import tqdm

    shards = [_shard(first) for first in tqdm(range(0, count, SHARD), desc="people", mininterval=5)]
    parts = [load_file(path) for path in shards]
    return ManyPeople(**{key: torch.cat([part[key] for part in parts])[:count] for key in parts[0]})


def _shard(first: int) -> Path:
    """The file of people ``first`` to ``first + SHARD``, made if it is missing."""
    from safetensors.torch import save

    from idea_engine.files.atomic_write import atomic_write

    path = cache_folder() / f"many-{PHOTOGRAPHS}-{PICTURES}" / f"{first:06d}.safetensors"
    if not path.exists():
        atomic_write(path, save(_seen(range(first, first + SHARD))))
    return path


def _seen(people: range) -> dict[str, Tensor]:
    from idea_engine.faces.head import align_head, head_mask

    from .faceclip import _recognized

    crops, heads, pictures, masks = [], [], [], []
    for index in people:
        who = person(SPLIT, index)
        rng = np.random.default_rng([77, index])
        for _ in range(PHOTOGRAPHS):
            shot = photograph(rng).with_(accessory="none")
            picture = render(who, shot)
            points = landmarks(who, shot) * SIZE + rng.normal(size=(5, 2)) * LANDMARK_ERROR
            crops.append(align(picture, points))
            heads.append(align_head(picture, points))
        for number in range(PICTURES):
            shot = shot_of(SPLIT, index, number)
            pictures.append(render(who, shot))
            box, points = (torch.from_numpy(values(who, shot) * SIZE) for values in (face_box, landmarks))
            fine = head_mask(box, points, SIZE, SIZE)
            masks.append(torch.nn.functional.adaptive_avg_pool2d(fine[None], SIZE // 8)[0])
    shape = (len(people), -1)
    return {
        "vectors": _recognized(np.stack(crops)).unflatten(0, shape), "heads": torch.from_numpy(np.stack(heads)).unflatten(0, shape),
        "latents": _encoded(np.stack(pictures)).unflatten(0, shape), "masks": (torch.stack(masks) * 255).round().byte().unflatten(0, shape),
    }


@torch.no_grad()
def _encoded(pictures: np.ndarray) -> Tensor:
    """(N, 128, 128, 3) uint8 → (N, 4, 16, 16) float16 latents of the shipped autoencoder, unit variance."""
    from .. import assets
    from ..networks.autoencoder import SD_SCALE, to_tensor

    parts = []
    for start in range(0, len(pictures), 100):
        with torch.autocast("cpu", torch.bfloat16):
            parts.append((assets.autoencoder().encode(to_tensor(pictures[start:start + 100])).float() * SD_SCALE).half())
    return torch.cat(parts).contiguous()  # not in the order of channels_last
