"""How much do pictures look like a person of the world? The scale everybody can read: 1 = the person's own photographs, 0 = strangers.

Only the judge decides; nothing that learns a person may ask it.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .people import SPLITS, person
from .portrait import render
from .shot import photograph
from .similarity import judge_embeddings

OTHER_PHOTOGRAPHS = 6


@dataclass(frozen=True)
class Scale:
    """The judge's ruler for one person.

    Attributes:
        own: (6, 512) embeddings of photographs of the person that no method has seen.
        ceiling: mean cosine among them. floor: their mean cosine to strangers.
    """

    own: Tensor
    ceiling: float
    floor: float

    def likeness(self, pictures: np.ndarray) -> np.ndarray:
        """(B, 128, 128, 3) uint8 → (B,) calibrated likeness; a picture in which the face pack finds no face counts as cosine 0."""
        cosines = (judge_embeddings(pictures) @ self.own.T).mean(1).numpy()
        return (cosines * has_face(pictures) - self.floor) / (self.ceiling - self.floor)


def scale(split: str, index: int, strangers: int = 199) -> Scale:
    """The ruler of one person, against the first ``strangers`` other people of the same split."""
    rng = np.random.default_rng([12, index])
    own = judge_embeddings(np.stack([render(person(split, index), photograph(rng)) for _ in range(OTHER_PHOTOGRAPHS)]))
    rng, rows = np.random.default_rng(13), []
    for other in range(min(strangers + 1, SPLITS[split])):
        pictures = np.stack([render(person(split, other), photograph(rng)) for _ in range(3)])
        if other != index:
            rows.append(torch.nn.functional.normalize(judge_embeddings(pictures).mean(0), dim=0))
    ceiling = float((own @ own.T)[~torch.eye(len(own), dtype=torch.bool)].mean())
    return Scale(own, ceiling, float((own @ torch.stack(rows).T).mean()))


def cosines_to(photo: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    """(128, 128, 3) uint8 photograph of anybody, (B, 128, 128, 3) uint8 → (B,) the judge's cosines: without other photographs there is no scale."""
    return (judge_embeddings(pictures) @ judge_embeddings(photo[None])[0]).numpy() * has_face(pictures)


def has_face(pictures: np.ndarray) -> np.ndarray:
    """(B, 128, 128, 3) uint8 → (B,) bool: does the face pack find a face?"""
    detector = _detector()
    return np.array([len(detector.detect(np.ascontiguousarray(picture), detector.detection_size)) > 0 for picture in pictures])


def _detector():
    from idea_engine.insightface_encoder import load_face_model

    from .assets import FACE_PACK

    return load_face_model(FACE_PACK, "CPU", 320)
