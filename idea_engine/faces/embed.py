"""Photographs → :class:`FaceEmbedding`: which face is meant, and the average of one person (METHODS §1.1)."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import FaceNotFoundError
from .align import CROP_SIZE, align_face
from .embedding import FaceEmbedding
from .head import align_head
from .mask import face_masks
from .photo import check_photo, photo_key, to_pixels
from .search import DetectedFace, FaceDetector, find_faces

CERTAIN_SCORE = 0.75  # of the detector: faces in photographs mostly lie above; a 'face' in a vase or in noise below
CHOICES = ("largest", "best score", "left to right", "index")
ON_MISSING = ("error", "skip")


class FaceEncoder(FaceDetector, Protocol):
    """What finds faces and says who they are; :func:`idea_engine.faces.insightface_encoder.load_face_model` makes one."""

    recognizer: str  # name and content hash: embeddings of two recognizers cannot be compared
    licence: str

    def embed(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """F aligned (112, 112, 3) uint8 RGB crops → (F, 512) float32, each row of unit length."""
        ...


@dataclass(frozen=True)
class PhotoFaces:
    """Every face of one photograph, and the one that is meant.

    Attributes:
        faces: in the order of the choice; the preview numbers them so, from 0.
        chosen: position in ``faces``, or None when the photograph has no such face.
    """

    faces: tuple[DetectedFace, ...]
    chosen: int | None


def search_photos(encoder: FaceDetector, images: Sequence[Tensor], choose: str = "largest", index: int = 0) -> list[PhotoFaces]:
    """Find and order the faces of each photograph.

    Args:
        images: (H, W, 1 | 3 | 4) float pictures in 0..1, of any sizes.
        choose: ``largest`` or ``best score`` take the first in that order; ``left to right`` takes number ``index`` counted from the
            left; ``index`` takes number ``index`` in reading order, row by row.
        index: from 0.

    Raises:
        BadImageError: a picture is too small, not finite, or not a picture.
    """
    if choose not in CHOICES:
        raise ValueError(f"choose is {choose!r}, expected one of {', '.join(CHOICES)}")
    found = []
    for number, image in enumerate(images, 1):
        faces = _ordered(find_faces(encoder, to_pixels(check_photo(image, f"Photograph {number}"))), choose)
        wanted = index if choose in ("left to right", "index") else 0
        found.append(PhotoFaces(tuple(faces), wanted if 0 <= wanted < len(faces) else None))
    return found


def embed_faces(
    encoder: FaceEncoder,
    images: Sequence[Tensor],
    choose: str = "largest",
    index: int = 0,
    on_missing: str = "error",
    found: Sequence[PhotoFaces] | None = None,
) -> FaceEmbedding:
    """One person from one or several photographs.

    Args:
        images, choose, index: see :func:`search_photos`.
        on_missing: ``error`` stops at a photograph without the face; ``skip`` leaves it out as long as one remains.
        found: what :func:`search_photos` said of these images, when it is known already.

    Returns:
        One row per photograph in which the face was found. A row's weight is the detector's score, less for faces smaller than the
        recognizer's own input.

    Raises:
        FaceNotFoundError: the face is missing in a photograph (``error``) or in all of them.
        BadImageError: see :func:`search_photos`.
    """
    if on_missing not in ON_MISSING:
        raise ValueError(f"on_missing is {on_missing!r}, expected one of {', '.join(ON_MISSING)}")
    found = search_photos(encoder, images, choose, index) if found is None else found
    missing = [number for number, photo in enumerate(found) if photo.chosen is None]
    if len(missing) == len(found) or (missing and on_missing == "error"):
        raise FaceNotFoundError(_missing_sentence(found, missing, index))
    rows = [(number, photo.faces[photo.chosen]) for number, photo in enumerate(found) if photo.chosen is not None]
    photos = {number: check_photo(images[number], f"Photograph {number + 1}") for number, _ in rows}
    cuts = []
    for number, face in rows:  # one photograph's pixels at a time
        pixels = to_pixels(photos[number])
        cuts.append((align_face(pixels, face.landmarks), align_head(pixels, face.landmarks)))
    crops, heads = (np.stack(cut) for cut in zip(*cuts))
    boxes = torch.from_numpy(np.stack([face.box for _, face in rows])).float()
    landmarks = torch.from_numpy(np.stack([face.landmarks for _, face in rows])).float()
    return FaceEmbedding(
        vectors=torch.from_numpy(np.asarray(encoder.embed(list(crops)), dtype=np.float32)),
        weights=torch.tensor([_quality(face) for _, face in rows], dtype=torch.float32),
        boxes=boxes,
        landmarks=landmarks,
        crops=torch.from_numpy(crops.astype(np.float32) / 255.0),
        masks=face_masks(boxes, landmarks, [photos[number].shape[:2] for number, _ in rows]),
        image_index=tuple(number for number, _ in rows),
        recognizer=encoder.recognizer,
        licence=encoder.licence,
        photographs=tuple(photo_key(photos[number]) for number, _ in rows),
        heads=torch.from_numpy(heads.astype(np.float32) / 255.0),
    )


def doubts(found: Sequence[PhotoFaces]) -> str:
    """A sentence on the chosen faces of which the detector is not certain; '' where there are none."""
    doubtful = [
        (number, photo) for number, photo in enumerate(found) if photo.chosen is not None and photo.faces[photo.chosen].score < CERTAIN_SCORE
    ]
    if not doubtful:
        return ""
    scores = ", ".join(f"{photo.faces[photo.chosen].score:.2f}" for _, photo in doubtful)
    name = _name([number for number, _ in doubtful], len(found))
    return (
        f"It is not certain that what was found in {name} is a face (confidence {scores}, expected {CERTAIN_SCORE} or more). Look at preview: if the green "
        "box holds no face, or a covered one, use another photograph."
    )


def _quality(face: DetectedFace) -> float:
    """Weight in the average: the detector's score × how much of the crop's resolution the photograph really has."""
    return max(1e-3, face.score * min(1.0, float(np.sqrt(max(face.area, 0.0))) / CROP_SIZE))


def _ordered(faces: Sequence[DetectedFace], choose: str) -> list[DetectedFace]:
    if choose == "largest":
        return sorted(faces, key=lambda face: -face.area)
    if choose == "best score":
        return sorted(faces, key=lambda face: -face.score)
    across = sorted(faces, key=lambda face: face.centre[0])
    if choose == "left to right":
        return across
    # Reading order: a face belongs to the row of the topmost face left if its centre is less than half that face's height below.
    rows, rest = [], sorted(faces, key=lambda face: face.centre[1])
    while rest:
        limit = rest[0].centre[1] + 0.5 * (rest[0].box[3] - rest[0].box[1])
        rows += sorted((face for face in rest if face.centre[1] <= limit), key=lambda face: face.centre[0])
        rest = [face for face in rest if face.centre[1] > limit]
    return rows


def _missing_sentence(found: Sequence[PhotoFaces], missing: Sequence[int], index: int) -> str:
    """Says what each kind of trouble needs: a photograph without any face, or with fewer faces than asked for."""
    empty = [number for number in missing if not found[number].faces]
    skip = " Or set on_missing to skip, which leaves such photographs out." if len(missing) < len(found) else ""
    if empty:
        return (
            f"No face was found in {_name(empty, len(found))}, although it was also searched padded, at smaller sizes and turned. "
            f"Use a photograph in which eyes and mouth are visible, or lower detection_size in Load Face Model for very large faces.{skip}"
        )
    counts = len(found[missing[0]].faces)
    return (
        f"{_name(missing, len(found))[0].upper()}{_name(missing, len(found))[1:]} has {counts} face{'s' if counts > 1 else ''}, "
        f"numbered from 0 to {counts - 1}, but index is {index}. Lower index in Face Embed, or set choose to largest.{skip}"
    )


def _name(numbers: Sequence[int], total: int) -> str:
    if total == 1:
        return "the photograph"
    return f"photograph {', '.join(str(number + 1) for number in numbers)} of {total}"
