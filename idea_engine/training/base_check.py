"""A check of one base model: one person learned at several rates, drawn and judged, whoever holds the model. What is advised: :mod:`..judging.base_advice`.

Pictures are (H, W, 3) in 0..1; d is the width of a judge's embedding.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..backends.base import DiffusionBackend
from ..errors import EvaluationError, TrainingError
from ..faces.mask import face_mask
from ..faces.photo import to_pixels
from ..faces.search import plain_faces
from ..identity.enhanced import EnhancedIdentity
from ..judging.base_advice import RateResult, RecipeAdvice, advice_json, advise
from ..judging.likeness import COPYING_WARNING, copying, score_likeness
from ..methods import RECIPES, build as build_module
from ..prompts.trigger import PLACEHOLDER, scene_of
from ..sheets.contact import contact_sheet
from .config import TrainConfig
from .loop import train
from .previews import ANYBODY, paint
from .report import StepEvent, TrainReport

TRIGGER = "<person>"
PRESETS = tuple(name for name, recipe in RECIPES.items() if recipe.relative)  # the others have their authors' rates
PROMPTS = 4  # of the evaluation prompts
_SEED_STEP = 1000  # between the seeds of two prompts
_AGAIN = 500  # the same prompt once more, with another seed


@dataclass(frozen=True)
class Judged:
    """One picture: the judge's embedding or None, how much of its prompt it shows, and the picture (H, W, 3)."""

    vector: Tensor | None
    prompt: float
    picture: Tensor


class BaseCheck:
    """The person, the judges and the prompts of a check; tries one rate after another and keeps what came of each."""

    def __init__(
        self, photo: Tensor, others: Sequence[Tensor], prompts: Sequence[str], *, measure: Callable[[Tensor], Tensor | None], encoder,
        draw: Callable[[str, int], Tensor], critic=None,
    ):
        """
        Args:
            photo: what is learned from. others: of the same person, to compare with.
            prompts: with :data:`~..prompts.trigger.PLACEHOLDER` for the person.
            measure: the judge: picture → (d,) of unit length, or None where it finds no face.
            encoder: finds the head, which is no part of the scene.
            draw: (text, seed) → the picture that the bare model draws.
            critic: its ``score(picture, text)`` judges the prompt; None judges by how much of the scene stays as it is without the person.

        Raises:
            EvaluationError: the judge finds no face in ``photo``.
        """
        self.prompts, self.notes = list(prompts), []
        self._measure, self._encoder, self._critic = measure, encoder, critic
        trained = measure(photo)
        if trained is None:
            raise EvaluationError("The judge finds no face in the first photograph. Give one in which eyes and mouth are visible.")
        measured = [vector for other in others if (vector := measure(other)) is not None]
        self._training, self._references = trained[None], torch.stack(measured) if measured else trained[None]
        self.calibrated = len(measured) > 1
        if not measured:
            self.notes.append("There is one photograph only, so likeness is the cosine to the very photograph that was learned from; give three or more.")
        elif not self.calibrated:
            self.notes.append("There is one photograph to compare with only, so likeness is a cosine; give three or more photographs.")
        # What the model makes of the prompts without the person: what the scene should be.
        texts = [prompt.replace(PLACEHOLDER, ANYBODY) for prompt in self.prompts]
        self._plain = [draw(text, _SEED_STEP * number) for number, text in enumerate(texts)]
        again = [draw(text, _SEED_STEP * (number + _AGAIN)) for number, text in enumerate(texts)]
        self._chance = [_distance(one, other, None) for one, other in zip(self._plain, again)]
        self.prompt_by = "CLIP, in shares of the picture without the person" if critic else "how much of the scene stays as it is without the person"
        self.tried: dict[str, list[RateResult]] = {}
        self._photo = photo
        self._rows, self._captions = [[photo, *self._plain]], [["photograph", *["without the person"] * len(self._plain)]]

    def try_rate(self, recipe: str, rate: float, make: Callable[[], tuple[TrainReport, Sequence[Tensor]]]) -> RateResult:
        """Judge what ``rate`` times the recipe's own makes of the person.

        Args:
            make: learns the person and draws every prompt of :meth:`seeded`.

        Raises:
            TrainingError: any but that the loss was not finite, which is a result.
        """
        try:
            report, pictures = make()
        except TrainingError as error:
            if "not finite" not in str(error):
                raise
            result, pictures = RateResult(rate, 0.0, 0.0, 0.0, 0.0, finite=False), []
        else:
            finite = not report.skipped and all(math.isfinite(loss) for loss in report.losses)
            result = self._result(rate, [Judged(self._measure(picture), self._shows(picture, number), picture) for number, picture in enumerate(pictures)], finite)
        self.tried.setdefault(recipe, []).append(result)
        self._rows.append([self._photo, *pictures])
        self._captions.append([f"{recipe}, {rate:g} times"] * len(self._rows[-1]))
        return result

    def seeded(self) -> list[tuple[str, int]]:
        """Every prompt, with the seed of the picture of it that was drawn without the person."""
        return [(prompt, _SEED_STEP * number) for number, prompt in enumerate(self.prompts)]

    def advice(self) -> dict[str, tuple[RecipeAdvice, Sequence[RateResult]]]:
        """Recipe → what is advised, and the results it is advised from."""
        return {name: (advise(name, results), results) for name, results in self.tried.items()}

    def sheet(self) -> Tensor:
        """(H, W, 3): the photograph and the prompts without the person, then a row for every rate."""
        return contact_sheet(self._rows, self._captions)

    def facts(self, width: int, judge: str, precision: str, steps: int = 0) -> dict[str, object]:
        """How the check was made. ``steps``: 0 for each recipe's own number."""
        return {
            "width": width, "trained_steps": steps or "each recipe's own", "judge": judge, "prompt_by": self.prompt_by, "calibrated": self.calibrated,
            "pictures": len(self.prompts), "precision": precision,
        }

    def kept(self, base: str, family: str, facts: Mapping[str, object]) -> bytes:
        """See :func:`~..judging.base_advice.advice_json`."""
        return advice_json(base, family, self.advice(), facts)

    def _shows(self, picture: Tensor, number: int) -> float:
        """How much of its prompt a picture shows, 0..1."""
        if self._critic is not None:
            scene = scene_of(self.prompts[number])
            return min(1.0, max(0.0, self._critic.score(picture, scene)) / max(1e-3, self._critic.score(self._plain[number], scene)))
        apart = _distance(picture, self._plain[number], self._head(picture))
        return min(1.0, max(0.0, 1.0 - apart / max(1e-4, self._chance[number])))

    def _head(self, picture: Tensor) -> Tensor | None:
        """Where the person is, who may change: the head of the person drawn, None where there is none."""
        faces = plain_faces(self._encoder, to_pixels(picture))
        if not faces:
            return None
        face = max(faces, key=lambda one: one.area)
        return face_mask(torch.from_numpy(face.box), torch.from_numpy(face.landmarks), *picture.shape[:2])

    def _result(self, rate: float, judged: Sequence[Judged], finite: bool) -> RateResult:
        found = torch.tensor([one.vector is not None for one in judged])
        rows = torch.stack([torch.zeros_like(self._training[0]) if one.vector is None else one.vector for one in judged])
        scored = score_likeness(rows, found, self._references)
        others = self._references if self.calibrated else None
        copies = copying(rows, found, self._training, others)
        return RateResult(
            rate=rate, likeness=scored.mean if scored.calibrated is None else scored.calibrated,
            prompt=sum(one.prompt for one in judged) / len(judged), copies=float((copies >= COPYING_WARNING).float().mean()),
            faces=float(found.float().mean()), finite=finite,
        )


def said(recipe: str, result: RateResult) -> str:
    """The figures of one rate in a line."""
    line = f"{recipe} × {result.rate:g}: likeness {result.likeness:.2f}, prompt {result.prompt:.2f}, copies {result.copies:.0%}, faces {result.faces:.0%}"
    return line if result.finite else f"{line}; the loss was not finite"


def check_config(recipe: str, rate: float, side: int, seed: int, steps: int = 0) -> TrainConfig:
    """The training of one rate: nothing but the rate differs from the recipe. ``steps``: 0 for the recipe's own number."""
    return TrainConfig(recipe=recipe, trigger=TRIGGER, steps=steps, lr=RECIPES[recipe].lr * rate, resolution=side, seed=seed)


def learn_and_paint(
    backend: DiffusionBackend, enhanced: EnhancedIdentity, photo: Tensor, config: TrainConfig, prompts: Sequence[tuple[str, int]], *,
    masks: Sequence[Tensor] | None = None, on_step: Callable[[StepEvent], None] = lambda event: None, before_picture: Callable[[], None] = lambda: None,
    start: float = 0.0,
) -> tuple[TrainReport, list[Tensor]]:
    """Learn the person and draw them as previews are drawn: for a backend without samplers of its own.

    Args:
        prompts: of :meth:`BaseCheck.seeded`.
        start: share of the sampling from which the person acts.
        before_picture: called before every picture; whatever it raises ends the check.
    """
    learned = []

    def build(*given):
        learned.append(build_module(*given))
        return learned[0]

    _, report = train(backend, enhanced, [photo], config, masks=masks, on_step=on_step, build=build)
    count, pictures = next(iter(enhanced.anchor.rows.values())).shape[0], []
    for prompt, seed in prompts:
        before_picture()
        pictures.append(paint(backend, prompt, config.resolution, config.seed + seed, learned[0], count, start))
    return report, pictures


def _distance(one: Tensor, other: Tensor, without: Tensor | None) -> float:
    """Mean absolute difference of two pictures (H, W, 3), seen from afar, outside of a mask."""
    blur = lambda picture: torch.nn.functional.adaptive_avg_pool2d(picture.movedim(-1, 0)[None], 32)[0]  # noqa: E731
    apart = (blur(one) - blur(other)).abs().mean(0)
    if without is None:
        return float(apart.mean())
    weights = 1.0 - torch.nn.functional.adaptive_avg_pool2d(without[None], 32)[0]
    return float((apart * weights).sum() / weights.sum().clamp_min(1e-6))
