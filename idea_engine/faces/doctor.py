"""The reference doctor: which photographs of a person are worth training on, what is wrong with the others, and what to do about it."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np
import torch
from torch import Tensor

from .embed import CERTAIN_SCORE, FaceEncoder, PhotoFaces, embed_faces, search_photos
from .embedding import FaceEmbedding
from .measures import FaceMeasures, measure_face
from .photo import check_photo, to_pixels

REJECT, WARN = "reject", "warn"
KEEP = ("usable", "flawless")  # without rejects; without any finding


@dataclass(frozen=True)
class DoctorLimits:
    """Where a measure begins to hurt; each pair is (warn, reject). The tests hold them against degraded photographs.

    Attributes:
        size: pixels of the face. The recognizer reads 112; from half of that it guesses.
        sharpness: see :class:`~idea_engine.faces.measures.FaceMeasures`. Sharp portraits lie above 0.1, a blur of 1/75 of the face's side at 0.02.
        yaw, pitch, roll: degrees away from upright and frontal.
        dark, bright: mean luminance of the face.
        clipped: share of pure black and white.
        detail: of eyes or mouth, relative to the face; a covered part is plain. Uncovered ones lie above 0.5.
        outside: share of the face beyond the photograph's edge.
        score: the detector's confidence. Vases, coloured blocks and noise in which one sees a face lie between 0.5 and 0.77.
        grain: of the sharpness, upwards: pure noise has 20, a noisy photograph of a face 2.
        second_face: area of the next largest face relative to the chosen one's.
        duplicate: correlation of two aligned crops. Copies, resized, dimmed, recompressed or cropped, lie above 0.9, two photographs of one person
            below 0.8.
        likeness: cosine to the person's other photographs: at least this, and at least ``likeness_share`` of what the others reach.
            Recognizers of the ArcFace family put two people below 0.3, two photographs of one mostly above.
    """

    size: tuple[float, float] = (112.0, 56.0)
    sharpness: tuple[float, float] = (0.08, 0.03)
    yaw: tuple[float, float] = (35.0, 60.0)
    pitch: tuple[float, float] = (30.0, 50.0)
    roll: tuple[float, float] = (30.0, 120.0)
    dark: tuple[float, float] = (0.2, 0.08)
    bright: tuple[float, float] = (0.85, 0.95)
    clipped: tuple[float, float] = (0.25, 0.6)
    detail: tuple[float, float] = (0.25, 0.0)
    outside: tuple[float, float] = (0.05, 0.3)
    score: tuple[float, float] = (CERTAIN_SCORE, 0.7)
    grain: tuple[float, float] = (4.0, 8.0)
    second_face: float = 0.25
    duplicate: float = 0.88
    likeness: float = 0.3
    likeness_share: float = 0.5


@dataclass(frozen=True)
class Finding:
    """One thing about one photograph.

    Attributes:
        severity: ``reject`` or ``warn``.
        short: a few words, for the contact sheet.
        value: what was measured, None where nothing is measured.
        limit: the threshold that it crossed.
        advice: a sentence: what was found and what to do.
    """

    severity: str
    short: str
    value: float | None
    limit: float | None
    advice: str


@dataclass(frozen=True)
class PhotoVerdict:
    """What the doctor says of one photograph.

    Attributes:
        number: from 1, as on the contact sheet.
        measures: None where no face was found.
        findings: rejects first; empty for a good photograph.
    """

    number: int
    measures: FaceMeasures | None
    findings: tuple[Finding, ...]

    @property
    def severity(self) -> str | None:
        """The worst of its findings, or None."""
        return self.findings[0].severity if self.findings else None

    def kept(self, keep: str) -> bool:
        """Whether it passes; ``keep`` is one of :data:`KEEP`."""
        return not self.findings if keep == "flawless" else self.severity != REJECT


@dataclass(frozen=True)
class Examination:
    """All photographs, their faces and verdicts; ``faces`` has a row per photograph with a face, or is None when none has one."""

    found: tuple[PhotoFaces, ...]
    faces: FaceEmbedding | None
    verdicts: tuple[PhotoVerdict, ...]


def examine_photos(encoder: FaceEncoder, images: Sequence[Tensor], limits: DoctorLimits = DoctorLimits()) -> Examination:
    """Look at photographs that should all show one person.

    Args:
        images: (H, W, 3) float pictures in 0..1, of any sizes; the largest face of each is meant.

    Raises:
        BadImageError: a picture is too small, not finite, or not a picture.
    """
    found = tuple(search_photos(encoder, images))
    faces = embed_faces(encoder, images, on_missing="skip", found=found) if any(photo.chosen is not None for photo in found) else None
    measures: dict[int, FaceMeasures] = {}
    findings: list[list[Finding]] = [[] for _ in images]
    for index, photo in enumerate(found):
        if photo.chosen is None:
            findings[index].append(Finding(REJECT, "no face", None, None, (
                "No face was found, even padded, smaller and turned. Use a photograph in which both eyes and the mouth are visible, not too dark."
            )))
            continue
        pixels = to_pixels(check_photo(images[index], f"Photograph {index + 1}"))
        measures[index] = measure_face(pixels, photo.faces[photo.chosen])
        findings[index] += _about_one(measures[index], photo, limits)
    if faces is not None:
        # A photograph that is left out anyway has no say in who the person is, nor is it the better copy of another.
        for look in (_strangers, _duplicates):
            usable = [index for index in faces.image_index if all(one.severity != REJECT for one in findings[index])]
            if len(usable) > 1:
                better = sorted(usable, key=lambda index: (len(findings[index]), -min(measures[index].size, 112.0) * measures[index].sharpness))
                for index, finding in look(faces, better, limits):
                    findings[index].append(finding)
    order = {REJECT: 0, WARN: 1}
    verdicts = tuple(
        PhotoVerdict(index + 1, measures.get(index), tuple(sorted(own, key=lambda one: order[one.severity]))) for index, own in enumerate(findings)
    )
    return Examination(found, faces, verdicts)


def report_text(verdicts: Sequence[PhotoVerdict], keep: str) -> str:
    """The plain list: one paragraph per photograph, then the count."""
    lines = []
    for verdict in verdicts:
        state = "good" if not verdict.findings else ("kept, but look at it" if verdict.kept(keep) else "left out")
        lines.append(f"{verdict.number}: {state}{_figures(verdict.measures)}")
        for one in verdict.findings:
            figure = "" if one.value is None else f" [{one.value:.3g}, limit {one.limit:.3g}]"
            lines.append(f"   {one.severity}: {one.advice}{figure}")
    kept = sum(verdict.kept(keep) for verdict in verdicts)
    lines.append(f"{kept} of {len(verdicts)} photographs are passed on.")
    return "\n".join(lines)


def _figures(measures: FaceMeasures | None) -> str:
    if measures is None:
        return ""
    m = measures
    return (
        f" (face {m.size:.0f} px, sharpness {m.sharpness:.2f}, turned {m.yaw:+.0f}°, nodding {m.pitch:+.0f}°, tilted {m.roll:+.0f}°, "
        f"brightness {m.brightness:.2f}, confidence {m.score:.2f})"
    )


def _about_one(m: FaceMeasures, photo: PhotoFaces, limits: DoctorLimits) -> list[Finding]:
    """Findings that need no other photograph."""
    made = [
        _low(m.size, limits.size, "small face", "The face is small, so there is little to learn from. Use a closer photograph, or crop it from a larger original"),
        _low(m.sharpness, limits.sharpness, "blurred", "The face is blurred. Use a sharper photograph; sharpening by software invents detail and does not help"),
        _high(abs(m.yaw), limits.yaw, "turned away", "The head is turned far to the side. One or two such photographs are fine beside frontal ones"),
        _high(abs(m.pitch), limits.pitch, "looks up or down", "The head is tilted far up or down. Use a photograph taken from eye height"),
        _high(abs(m.roll), limits.roll, "tilted", "The picture is tilted. Rotate it upright before loading"),
        _low(m.brightness, limits.dark, "too dark", "The face is too dark. Brighten the photograph, or use one with light on the face"),
        _high(m.brightness, limits.bright, "too bright", "The face is too bright. Use a photograph with softer light"),
        _high(m.clipped, limits.clipped, "burnt out", "Large parts of the face are pure black or white. Use a photograph with softer light"),
        _high(m.outside, limits.outside, "cut off", "Part of the face lies outside the photograph. Use one that shows the whole face"),
        _low(m.score, limits.score, "uncertain", (
            "It may be no face at all, or one that is hard to make out; sunglasses, a hand, a mask or hair may cover it. Use one that shows all of it"
        )),
        _high(m.sharpness, limits.grain, "noise", "There is more noise than picture. Use a photograph taken in more light, or another one if this shows no face"),
    ]
    for part, detail in m.detail.items():
        made.append(_low(detail, limits.detail, f"{part} covered?", f"The {part} seems to be covered or washed out. Use a photograph that shows the whole face"))
    chosen = photo.faces[photo.chosen]
    others = [face.area / max(chosen.area, 1.0) for number, face in enumerate(photo.faces) if number != photo.chosen]
    if others and max(others) > limits.second_face:
        made.append(Finding(WARN, f"{len(photo.faces)} faces", max(others), limits.second_face, (
            f"There are {len(photo.faces)} faces and the largest was taken. Crop the photograph to the person who is meant."
        )))
    return [one for one in made if one is not None]


def _low(value: float, limit: tuple[float, float], short: str, advice: str) -> Finding | None:
    return _beyond(value, limit, value < limit[0], value < limit[1], short, advice)


def _high(value: float, limit: tuple[float, float], short: str, advice: str) -> Finding | None:
    return _beyond(value, limit, value > limit[0], value > limit[1], short, advice)


def _beyond(value: float, limit: tuple[float, float], warn: bool, reject: bool, short: str, advice: str) -> Finding | None:
    if not warn and not reject:
        return None
    return Finding(REJECT, short, value, limit[1], f"{advice}.") if reject else Finding(WARN, short, value, limit[0], f"{advice}.")


def _duplicates(faces: FaceEmbedding, usable: Sequence[int], limits: DoctorLimits) -> list[tuple[int, Finding]]:
    """Photographs that show the same moment as a better one, which stands before them in ``usable``."""
    alike = _same_picture(faces.crops[[faces.image_index.index(index) for index in usable]])
    found: dict[int, Finding] = {}
    for place, index in enumerate(usable):
        for later in range(place + 1, len(usable)):
            if index not in found and usable[later] not in found and float(alike[place, later]) > limits.duplicate:
                found[usable[later]] = Finding(REJECT, f"same as {index + 1}", float(alike[place, later]), limits.duplicate, (
                    f"This is the same picture of the face as photograph {index + 1}, which is the better copy. It adds nothing but weight; leave it out."
                ))
    return list(found.items())


def _same_picture(crops: Tensor) -> Tensor:
    """(F, F) correlation of the middle of each aligned crop with its best place in another; landmarks that moved a little do not hide a copy.

    Args:
        crops: (F, 112, 112, 3) in 0..1.
    """
    import cv2

    grey = [np.ascontiguousarray(crop.mean(-1).numpy(), dtype=np.float32) for crop in crops]
    alike = torch.eye(len(grey))
    for row, other in ((a, b) for a in range(len(grey)) for b in range(a)):
        middle = grey[row][26:104, 22:90]
        parts = (cv2.resize(middle, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for scale in (0.9, 0.95, 1.0, 1.05, 1.1))
        best = max(float(cv2.matchTemplate(grey[other], part, cv2.TM_CCOEFF_NORMED).max()) for part in parts)
        alike[row, other] = alike[other, row] = best if np.isfinite(best) else 0.0
    return alike


def _strangers(faces: FaceEmbedding, usable: Sequence[int], limits: DoctorLimits) -> list[tuple[int, Finding]]:
    """Photographs of somebody else: far, by embedding, from what the others agree on."""
    usable = sorted(usable)
    vectors = faces.vectors[[faces.image_index.index(index) for index in usable]]
    alike = vectors @ vectors.T
    if len(usable) == 2:
        value = float(alike[0, 1])
        if value >= limits.likeness:
            return []
        return [(usable[row], Finding(WARN, "two people?", value, limits.likeness, (
            f"Photographs {usable[0] + 1} and {usable[1] + 1} do not look like one person. Add a third, so that it can be said which is whose."
        ))) for row in range(2)]
    kept, found = list(range(len(usable))), []
    while len(kept) > 2:
        # Mean cosine to the others that are still in; leave out the worst, then look again without its influence.
        own = alike[kept][:, kept]
        means = (own.sum(1) - own.diagonal()) / (len(kept) - 1)
        limit = max(limits.likeness, limits.likeness_share * float(means.median()))
        worst = int(means.argmin())
        if float(means[worst]) >= limit:
            break
        row = kept.pop(worst)
        found.append((usable[row], Finding(REJECT, "another person?", float(means[worst]), limit, (
            "This does not look like the person in the other photographs. Leave it out, or, if it is the same person, add more photographs like it."
        ))))
    if len(kept) == 2 and float(alike[kept[0], kept[1]]) < limits.likeness:
        found += [(usable[row], Finding(REJECT, "who is it?", float(alike[kept[0], kept[1]]), limits.likeness, (
            "No two of the photographs look like one person. Use photographs of one person only."
        ))) for row in kept]
    return found


def only_rows(faces: FaceEmbedding, photographs: Sequence[int]) -> FaceEmbedding:
    """The rows of some photographs (indices from 0), numbered anew in the order of ``photographs``."""
    from dataclasses import replace

    rows = [faces.image_index.index(index) for index in photographs]
    return replace(
        faces, vectors=faces.vectors[rows], weights=faces.weights[rows], boxes=faces.boxes[rows], landmarks=faces.landmarks[rows],
        crops=faces.crops[rows], masks=tuple(faces.masks[row] for row in rows), image_index=tuple(range(len(rows))),
        photographs=tuple(faces.photographs[row] for row in rows), heads=None if faces.heads is None else faces.heads[rows],
    )
