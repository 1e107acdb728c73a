"""What the recognizer says of the faces of one person."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FACE_EMBEDDING_WIDTH = 512  # ArcFace family, METHODS §1.1


@dataclass(frozen=True)
class FaceEmbedding:
    """The faces of one person, one row per photograph in which the person was found.

    Attributes:
        vectors: (F, 512) float32, each row of unit length: the recognizer's normalised output.
        weights: (F,) float32 > 0, detection quality; the weights of the average.
        boxes: (F, 4) float32, x1 y1 x2 y2 in pixels of the source photograph.
        landmarks: (F, 5, 2) float32, left eye, right eye, nose, left and right mouth corner, in pixels.
        crops: (F, 112, 112, 3) float32 in 0..1, RGB, aligned to the ArcFace template.
        masks: one (H, W) float32 0..1 mask per face, at the size of its photograph.
        image_index: which picture of the input batch each face came from.
        recognizer: name and content hash of the recognizer; embeddings of two recognizers cannot be compared.
        licence: the licence of the face pack, in words.
        photographs: one :func:`~idea_engine.faces.photo.photo_key` per face: which photograph its mask belongs to.
        heads: (F, 64, 64, 3) float32 in 0..1, RGB: each head with its hair, see :mod:`idea_engine.faces.head`; None where it was not cut out.
    """

    vectors: Tensor
    weights: Tensor
    boxes: Tensor
    landmarks: Tensor
    crops: Tensor
    masks: tuple[Tensor, ...]
    image_index: tuple[int, ...]
    recognizer: str = ""
    licence: str = ""
    photographs: tuple[str, ...] = ()
    heads: Tensor | None = None

    def mean(self) -> Tensor:
        """The person: (512,) unit-length average of the rows, weighted by detection quality."""
        total = (self.vectors * self.weights[:, None]).sum(0)
        return torch.nn.functional.normalize(total, dim=0)

    def __len__(self) -> int:
        return self.vectors.shape[0]
