"""Looking for faces where a detector alone gives up: padded, at smaller sizes, turned."""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Iterator, Protocol, Sequence

import numpy as np

_SMALLEST_SIZE = 64  # two of SCRFD's coarsest cells
_LARGEST = 2048  # pixels: longer photographs are searched on a copy that is fitted once, instead of being padded, turned and copied whole
_PADDING = 0.5  # of the longer side, added on every side: a face that fills the picture then fills half of it


@dataclass(frozen=True)
class DetectedFace:
    """One face in one photograph.

    Attributes:
        box: (4,) float32 x1 y1 x2 y2, in pixels of the photograph.
        landmarks: (5, 2) float32 left eye, right eye, nose, left and right mouth corner; left as one looks at the upright face.
        score: the detector's confidence, 0..1.
    """

    box: np.ndarray
    landmarks: np.ndarray
    score: float

    @property
    def area(self) -> float:
        """Pixels² of the box."""
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))

    @property
    def centre(self) -> tuple[float, float]:
        """x, y of the middle of the box."""
        return float(self.box[0] + self.box[2]) / 2, float(self.box[1] + self.box[3]) / 2


class FaceDetector(Protocol):
    """Finds upright faces."""

    detection_size: int  # the side, in pixels, to which a picture is fitted before detection

    def detect(self, picture: np.ndarray, size: int) -> Sequence[DetectedFace]:
        """(H, W, 3) uint8 RGB, fitted into size × size → its faces, in pixels of the picture given."""
        ...


def find_faces(detector: FaceDetector, picture: np.ndarray) -> list[DetectedFace]:
    """Every face of a photograph; the first attempt that finds any ends the search.

    Tried in this order: as it is; padded with black (tight crops: a detector wants to see what surrounds a face); at half and a
    quarter of the detection size (faces larger than any the detector knows); turned by 90, 270 and 180 degrees, plain and padded
    (a camera that lay on its side, with its EXIF note lost).

    Args:
        picture: (H, W, 3) uint8 RGB.

    Returns:
        Faces in pixels of ``picture``, whichever attempt found them.
    """
    attempts = _attempts(detector.detection_size, max(picture.shape[:2]))
    return next((faces for attempt in attempts if (faces := _seen(detector, picture, *attempt))), [])


def plain_faces(detector: FaceDetector, picture: np.ndarray) -> list[DetectedFace]:
    """The faces of the first attempt of :func:`find_faces` alone: the picture as it is."""
    return _seen(detector, picture, 0, 0, detector.detection_size)


def _seen(detector: FaceDetector, picture: np.ndarray, turns: int, padding: int, size: int) -> list[DetectedFace]:
    """What one attempt finds, in pixels of ``picture``."""
    height, width = picture.shape[:2]
    if max(height, width) > _LARGEST:
        return _seen_small(detector, picture, turns, padding, size)
    seen = np.ascontiguousarray(np.rot90(np.pad(picture, ((padding, padding), (padding, padding), (0, 0))), turns))
    found = (_turned_back(face, turns, height + 2 * padding, width + 2 * padding) for face in detector.detect(seen, size))
    moved = (replace(face, box=face.box - padding, landmarks=face.landmarks - padding) for face in found)
    return [_clipped(face, height, width) for face in moved if _inside(face, height, width)]


def _seen_small(detector: FaceDetector, picture: np.ndarray, turns: int, padding: int, size: int) -> list[DetectedFace]:
    """The same of a large photograph, fitted into the detector's square here: a detector would do no better with the whole of it."""
    import cv2

    height, width = picture.shape[:2]
    room = round(size * max(height, width) / (max(height, width) + 2 * padding))  # what the padding leaves of the square
    # As SCRFD's own code fits a picture: the longer side fills the square, and one factor holds for both.
    tall = height > width
    fitted = (room, int(room / (height / width))) if tall else (int(room * (height / width)), room)
    if not min(fitted):  # thinner than a pixel
        return []
    factor, edge = fitted[0] / height, (size - room) // 2
    square = np.zeros((size, size, 3), dtype=np.uint8)
    square[edge : edge + fitted[0], edge : edge + fitted[1]] = cv2.resize(picture, fitted[::-1])
    found = (_turned_back(face, turns, size, size) for face in detector.detect(np.ascontiguousarray(np.rot90(square, turns)), size))
    moved = (replace(face, box=(face.box - edge) / factor, landmarks=(face.landmarks - edge) / factor) for face in found)
    return [_clipped(face, height, width) for face in moved if _inside(face, height, width)]


def _attempts(size: int, longer_side: int) -> Iterator[tuple[int, int, int]]:
    """(quarter turns counter-clockwise, padding in pixels, detection size)."""
    padding = round(_PADDING * longer_side)
    yield 0, 0, size
    yield 0, padding, size
    for part in (2, 4):
        smaller = max(_SMALLEST_SIZE, size // part // 32 * 32)  # SCRFD's coarsest stride is 32
        if smaller < size:
            yield 0, 0, smaller
    for turns in (1, 3, 2):
        yield turns, 0, size
        yield turns, padding, size


def _turned_back(face: DetectedFace, turns: int, height: int, width: int) -> DetectedFace:
    """Undo ``np.rot90(picture, turns)`` for a face; height and width are those before the turn."""
    if turns == 0:
        return face
    corners = _points_back(face.box.reshape(2, 2), turns, height, width)
    box = np.concatenate([corners.min(0), corners.max(0)])
    return replace(face, box=box, landmarks=_points_back(face.landmarks, turns, height, width))


def _points_back(points: np.ndarray, turns: int, height: int, width: int) -> np.ndarray:
    x, y = points[:, 0], points[:, 1]
    back = {1: (width - y, x), 2: (width - x, height - y), 3: (y, height - x)}[turns]
    return np.stack(back, axis=1).astype(np.float32)


def _inside(face: DetectedFace, height: int, width: int) -> bool:
    x, y = face.centre
    return 0 <= x < width and 0 <= y < height


def _clipped(face: DetectedFace, height: int, width: int) -> DetectedFace:
    """The box cut to the photograph; landmarks stay where they are, a chin may well lie outside."""
    return replace(face, box=np.clip(face.box, 0, [width, height, width, height]).astype(np.float32))
