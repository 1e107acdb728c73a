"""How much do pictures look like a person of the world? The scale everybody can read: 1 = the person's own photographs, 0 = strangers.

Only the judge decides; nothing that learns a person may ask it.
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from idea_engine.faces.search import DetectedFace, plain_faces

from .. import assets
from ..drawing.portrait import render
from ..world.people import SPLITS, person
from ..world.portrayal import photograph
from .similarity import judge_embeddings

CROWD = 200  # among how many people the right one is searched; all but one are the strangers
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

    def cosines(self, pictures: np.ndarray) -> Tensor:
        """(B, 128, 128, 3) uint8 → (B,) the judge's mean cosine to the person's photographs."""
        return (judge_embeddings(pictures) @ self.own.T).mean(1)

    def calibrated(self, cosine):
        """A cosine, or an array of them, where the person's own photographs are 1 and strangers 0."""
        return (cosine - self.floor) / (self.ceiling - self.floor)

    def likeness(self, pictures: np.ndarray) -> np.ndarray:
        """(B, 128, 128, 3) uint8 → (B,) calibrated likeness; a picture in which the face pack finds no face counts as cosine 0."""
        return self.calibrated(self.cosines(pictures).numpy() * has_face(pictures))


def scale(split: str, index: int) -> Scale:
    """The ruler of one person, against the CROWD of the same split."""
    own = judge_embeddings(other_photographs(split, index))
    people = crowd(split)
    strangers = people[torch.arange(len(people)) != index]
    ceiling = float((own @ own.T)[~torch.eye(len(own), dtype=torch.bool)].mean())
    return Scale(own, ceiling, float((own @ strangers.T).mean()))


def other_photographs(split: str, index: int) -> np.ndarray:
    """(6, 128, 128, 3) uint8: photographs of a person that no method has seen, for scoring."""
    rng = np.random.default_rng([12, index])
    return np.stack([render(person(split, index), photograph(rng)) for _ in range(OTHER_PHOTOGRAPHS)])


@lru_cache(maxsize=4)
def crowd(split: str) -> Tensor:
    """(CROWD, 512) what the people of a split look like to the judge: the mean of three photographs, unit length."""
    rng, rows = np.random.default_rng(13), []
    for index in range(min(CROWD, SPLITS[split])):
        pictures = np.stack([render(person(split, index), photograph(rng)) for _ in range(3)])
        rows.append(torch.nn.functional.normalize(judge_embeddings(pictures).mean(0), dim=0))
    return torch.stack(rows)


def cosines_to(photo: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    """(128, 128, 3) uint8 photograph of anybody, (B, 128, 128, 3) uint8 → (B,) the judge's cosines: without other photographs there is no scale."""
    return (judge_embeddings(pictures) @ judge_embeddings(photo[None])[0]).numpy() * has_face(pictures)


def faces_in(pictures: np.ndarray) -> list[DetectedFace | None]:
    """(B, 128, 128, 3) uint8 → the largest face that the face pack finds in each as it is, None where it finds none."""
    found = (plain_faces(face_model(), picture) for picture in pictures)
    return [max(faces, key=lambda face: face.area, default=None) for faces in found]


def has_face(pictures: np.ndarray) -> np.ndarray:
    """(B, 128, 128, 3) uint8 → (B,) bool: does the face pack find a face?"""
    return np.array([face is not None for face in faces_in(pictures)])


@lru_cache(maxsize=1)
def face_model():
    """The world's own face pack, opened once: what finds and embeds faces for every method; it is not the judge."""
    from idea_engine.faces.insightface_encoder import load_face_model

    return load_face_model(assets.FACE_PACK, "CPU", assets.DETECTION_SIZE)
