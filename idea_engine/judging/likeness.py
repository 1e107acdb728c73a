"""How alike generated pictures are to a person: the Celeb Basis protocol with its traps mended (METHODS, 'How they are judged').

Everything here works on embeddings of a *scoring* recognizer, which should be another than the one that conditioned the training, and on
photographs that were held out of the training. A picture without a face counts 0; the mean without such pictures stands beside it.
Dimension letters: N generated pictures, R reference photographs, T training photographs, S strangers' photographs, d the recognizer's width.
"""
from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from typing import Mapping, Sequence

import torch
from torch import Tensor

from ..errors import EvaluationError
from ..files.foreign_text import cell

# Half of the way from the person's other photographs to the very photograph, see :func:`copying`. Measured in the Portrait World (30 validation people,
# 360 fresh photographs, both its recognizers; 3, 5 and 8 references): 2 to 3 % false alarms, 3 to 4 % with two references. Caught: every exact copy, 98 %
# or more saved as JPEG, 86 to 100 % cropped by up to three of 128 pixels; another exposure and white balance, by 15 and 6 %, 75 to 89 %, and
# mirrored ones 17 to 40 %. Less is found of what is changed more. pytest tests/portrait_world/test_copying.py -s prints the figures for 20 people.
COPYING_WARNING = 0.5
_TYPICAL = 0.65  # cosine of two photographs of one person, where there is only one to judge by
_SAME_PHOTOGRAPH = 0.98  # a cosine above is one photograph given twice, or saved twice
_SMALLEST_RANGE = 1e-3  # between strangers and the person; below it the recognizer cannot tell them apart


@dataclass(frozen=True)
class Likeness:
    """What one recognizer says of N pictures that should show one person. Cosines are in -1..1.

    Attributes:
        per_image: (N,) float32, mean cosine of each picture to the R references; 0 where no face was found.
        found: (N,) bool, whether a face was found.
        mean: of ``per_image``: a missing face counts 0.
        raw_mean_found: mean over the pictures with a face, as the protocol's papers report it; None when there is none.
        detection_rate: share of pictures with a face, 0..1.
        ceiling: mean cosine of each reference to the others (leave one out): how alike the person's own photographs are; None when R < 2.
        floor: mean cosine of the references to strangers; 0.0 where no strangers were given, for embeddings are made to put them there.
        calibrated: mean of ``calibrated_per_image``; None when R < 2, or when the ceiling is not above the floor.
        calibrated_per_image: (N,) float32: 1.0 is as alike as the person's own other photographs, 0.0 a stranger or no face. Or None.
        copying: (N,) float32, see :func:`copying`: 0 is another photograph of the person, 1 the very reference; NaN where no face was found. From
            :data:`COPYING_WARNING` on the picture repeats a photograph rather than showing the person.
    """

    per_image: Tensor
    found: Tensor
    mean: float
    raw_mean_found: float | None
    detection_rate: float
    ceiling: float | None
    floor: float
    calibrated: float | None
    calibrated_per_image: Tensor | None
    copying: Tensor

    @property
    def copies(self) -> list[int]:
        """Which pictures repeat a reference photograph: those whose ``copying`` reaches :data:`COPYING_WARNING`."""
        return [i for i, value in enumerate(self.copying.tolist()) if value >= COPYING_WARNING]


def score_likeness(generated: Tensor, found: Tensor, references: Tensor, strangers: Tensor | None = None) -> Likeness:
    """Score pictures of one person.

    Args:
        generated: (N, d) float32, a row of unit length per picture; rows of pictures without a face may hold anything.
        found: (N,) bool.
        references: (R, d) float32 unit rows of the person's photographs, best such as were held out of the training.
        strangers: (S, d) float32 unit rows of other people's photographs, or None.

    Raises:
        EvaluationError: there is no picture or no reference, or the widths differ, so that recognizers were mixed.
    """
    _check(generated, found, references, strangers)
    generated, references = generated.float(), references.float()
    cosines = torch.where(found[:, None], generated @ references.T, torch.zeros(()))
    per_image = cosines.mean(1)
    count = len(references)
    among = references @ references.T
    ceiling = float((among.sum() - among.diagonal().sum()) / (count * (count - 1))) if count > 1 else None
    floor = float((references @ strangers.float().T).mean()) if strangers is not None and len(strangers) else 0.0
    calibrated = None
    if ceiling is not None and ceiling - floor > _SMALLEST_RANGE:
        calibrated = torch.where(found, (per_image - floor) / (ceiling - floor), torch.zeros(()))
    return Likeness(
        per_image=per_image,
        found=found,
        mean=float(per_image.mean()),
        raw_mean_found=float(per_image[found].mean()) if found.any() else None,
        detection_rate=float(found.float().mean()),
        ceiling=ceiling,
        floor=floor,
        calibrated=None if calibrated is None else float(calibrated.mean()),
        calibrated_per_image=calibrated,
        copying=copying(generated, found, references),
    )


def copying(generated: Tensor, found: Tensor, photos: Tensor, others: Tensor | None = None) -> Tensor:
    """(N,) how far each picture has come from being another photograph of the person (0) to being one of ``photos`` itself (1).

    Two photographs of one person are alike too, some people's more than others', and one light, pose or hat more than another. So every photograph has a
    zero of its own: the cosine to the nearest of the person's *other* photographs. Whoever comes half of the way from there to 1 has come nearer than
    another photograph would. The photograph for which that is most counts. Below 0 a picture is less alike than those are.

    Args:
        generated, found: see :func:`score_likeness`; NaN where no face was found.
        photos: (T, d) unit rows of the photographs that may have been copied.
        others: (R, d) unit rows of more photographs of the person, or None. Of a single photograph without others the zero is a cosine of 0.65,
            which two photographs of one person typically have; recognizers differ, so two photographs judge better.

    Raises:
        EvaluationError: see :func:`score_likeness`.
    """
    _check(generated, found, photos, others)
    photos = photos.float()
    person = photos if others is None else torch.cat([photos, others.float()])
    among = photos @ person.T
    among = among.masked_fill(among > _SAME_PHOTOGRAPH, -1.0)
    zero = among.max(1).values
    zero = torch.where(zero > -1.0, zero, torch.full_like(zero, _TYPICAL))
    way = ((generated.float() @ photos.T - zero) / (1.0 - zero)).max(1).values
    return torch.where(found, way, torch.full((), math.nan))


def copy_paste(generated: Tensor, found: Tensor, training: Tensor, held_out: Tensor) -> Tensor:
    """(N,) likeness to the very training photograph beyond likeness to the person; NaN where no face was found.

    Args:
        generated, found: see :func:`score_likeness`.
        training: (T, d) unit rows of the photographs that were trained on; the nearest of them counts.
        held_out: (R, d) unit rows of the person's other photographs.

    Raises:
        EvaluationError: see :func:`score_likeness`.
    """
    _check(generated, found, held_out, training)
    nearest = (generated.float() @ training.float().T).max(1).values
    beyond = nearest - (generated.float() @ held_out.float().T).mean(1)
    return torch.where(found, beyond, torch.full((), math.nan))


def likeness_rows(likeness: Likeness, names: Sequence[str] = ()) -> list[dict[str, object]]:
    """One row per picture for a table: picture, face_found, likeness, calibrated, copying; empty where there is no value."""
    names = names or [str(number) for number in range(1, len(likeness.per_image) + 1)]
    calibrated = [None] * len(names) if likeness.calibrated_per_image is None else likeness.calibrated_per_image.tolist()
    values = zip(names, likeness.found.tolist(), likeness.per_image.tolist(), calibrated, likeness.copying.tolist())
    return [
        {"picture": name, "face_found": int(found), "likeness": _short(raw), "calibrated": _short(scale), "copying": _short(copied)}
        for name, found, raw, scale, copied in values
    ]


def csv_text(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as CSV text with a header, in which no text is a formula; the columns are those of all rows, in the order in which they first appear."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if value is None else cell(value) for name, value in row.items()} for row in rows)
    return buffer.getvalue()


def _short(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 4)


def _check(generated: Tensor, found: Tensor, references: Tensor, others: Tensor | None) -> None:
    if generated.ndim != 2 or not len(generated):
        raise EvaluationError("There is no picture to score. Generate some first.")
    if found.shape != generated.shape[:1] or found.dtype != torch.bool:
        raise ValueError(f"found has the shape {tuple(found.shape)} and type {found.dtype}, expected one bool for each of {len(generated)} pictures")
    if references.ndim != 2 or not len(references):
        raise EvaluationError("There is no reference photograph of the person to compare with. Give at least one in which the face is found.")
    widths = {rows.shape[-1] for rows in (generated, references, others) if rows is not None and len(rows)}
    if len(widths) > 1:
        raise EvaluationError(
            f"The embeddings have {' and '.join(map(str, sorted(widths)))} numbers, so they come from different recognizers and cannot be compared. "
            "Measure all pictures with the same face pack."
        )
