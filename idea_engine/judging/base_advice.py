"""What a check of one base model advises: by how much the recipes' rates fit it. Made by ``idea-engine check`` and Check Model, kept as models/idea/bases/HASH.json."""
from __future__ import annotations

import hashlib
import json
import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ..errors import EvaluationError
from ..files.atomic_write import atomic_write
from ..files.file_names import write_advice
from ..files.fingerprint import fingerprint
from ..files.foreign_text import parsed_json, shown

FOLDER = "bases"  # below models/idea
RATES = (0.5, 1.0, 2.0)  # of the recipe's own
_READ = ("attn2.to_k.weight", "attn2.to_v.weight")  # called so by diffusers and by ComfyUI
_FORMAT = 1
_LONGEST = 1 << 20  # bytes; a real one has a few thousand
# A rate is another's better only by more than pictures of another seed differ by (the Portrait World's spread over 24, .16, gives .03).
_MARGIN = 0.03
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RateResult:
    """What one rate made of the person; every share 0..1, likeness about so.

    Attributes:
        rate: times the recipe's own.
        likeness: calibrated where there are two photographs to compare with, else the cosine; a missing face counts 0.
        prompt: how much of the prompts the pictures show, see ``prompt_by`` of the report.
        copies: share of pictures that repeat a photograph. faces: share in which a face was found.
        finite: whether the loss stayed finite to the end.
    """

    rate: float
    likeness: float
    prompt: float
    copies: float
    faces: float
    finite: bool = True

    @property
    def worth(self) -> float:
        """One figure to choose by: a face that ignores the prompt is worth no more than a scene without the person; a copy is worth half."""
        return max(0.0, self.likeness) * max(0.0, self.prompt) * (1.0 - 0.5 * self.copies) if self.finite else 0.0


@dataclass(frozen=True)
class RecipeAdvice:
    """The rate of one recipe on one base model: ``rate`` times its own, and why, in words."""

    rate: float
    says: str


def advise(recipe: str, results: Sequence[RateResult]) -> RecipeAdvice:
    """Whether the recipe's own rate fits, is too hot or too cold.

    Raises:
        EvaluationError: its own rate is not among the results.
    """
    own = next((one for one in results if one.rate == 1.0), None)
    if own is None:
        raise EvaluationError(f"The rates that were tried with {recipe} do not hold its own, 1.")
    best = max(results, key=lambda one: one.worth)
    if best.worth <= 0.0:
        return RecipeAdvice(1.0, f"{recipe}: no rate made the person (no face is alike, or no picture shows its prompt). The rate is not what is wrong; look at the sheet.")
    gain = f"likeness {own.likeness:.2f} → {best.likeness:.2f}, prompt {own.prompt:.2f} → {best.prompt:.2f}"
    if best.rate == 1.0 or best.worth - own.worth <= _MARGIN:
        return RecipeAdvice(1.0, f"{recipe}: its rate fits this model (likeness {own.likeness:.2f}, prompt {own.prompt:.2f}).")
    if best.rate < 1.0:
        what = "is too hot for this model: the loss was not finite" if not own.finite else "is too hot for this model"
        return RecipeAdvice(best.rate, f"{recipe}: its rate {what}; {best.rate:g} times it is better ({gain}).")
    return RecipeAdvice(best.rate, f"{recipe}: its rate is too cold for this model; {best.rate:g} times it is better ({gain}).")


def base_hash(named: Iterable[tuple[str, Tensor]]) -> str:
    """16 hexadecimal digits of a UNet, the same for diffusers and ComfyUI, which name and order its weights differently: of what its cross-attention
    reads with, which every fine-tuning changes. Values count as bfloat16, for the two may have loaded one file in different precisions.
    """
    made = [
        fingerprint([("", tensor.detach().to(torch.bfloat16).float())]) for name, tensor in named if name.endswith(_READ)
    ]
    return hashlib.sha256("".join(sorted(made)).encode()).hexdigest()[:16]


def advice_json(base: str, family: str, recipes: Mapping[str, tuple[RecipeAdvice, Sequence[RateResult]]], facts: Mapping[str, object]) -> bytes:
    """What is kept and may be sent: figures and sentences; no face, no photograph, no name of a file."""
    return json.dumps({
        "idea.check": _FORMAT, "base": base, "family": family, **facts,
        "recipes": {
            name: {"rate": advice.rate, "says": advice.says, "tried": [{key: _rounded(value) for key, value in asdict(one).items()} for one in results]}
            for name, (advice, results) in recipes.items()
        },
    }, indent=1).encode()


def keep_advice(home: Path, base: str, kept: bytes) -> Path:
    """Put the advice for the base model ``base`` where Train Identity and Refit Identity find it, in place of what an earlier check said.

    Args:
        home: models/idea.

    Raises:
        EvaluationError: nothing can be written there.
    """
    place = Path(home) / FOLDER / f"{base}.json"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(place, kept)
    except OSError as error:
        raise EvaluationError(f"The advice cannot be kept as {place}: {error.strerror or error}. {write_advice(error, place.parent)}") from error
    return place


def advised_rate(folders: Sequence[Path], base: str, recipe: str) -> float:
    """By what the recipe's rate is multiplied on the base model ``base``; 1 where nobody advised otherwise, or the file cannot be used."""
    for folder in folders:
        path = Path(folder) / f"{base}.json"
        try:
            if not path.is_file():
                continue
            if path.stat().st_size > _LONGEST:
                raise ValueError("it is too large")
            kept = parsed_json(path.read_text(encoding="utf-8"))
            if kept["idea.check"] != _FORMAT or kept["base"] != base:
                raise ValueError("it is of another model, or of another version")
            rate = float(kept["recipes"].get(recipe, {"rate": 1.0})["rate"])
            if not (math.isfinite(rate) and 0.05 <= rate <= 20.0):
                raise ValueError(f"the rate {rate} cannot be")
            return rate
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            _log.warning("%s holds no usable advice for this base model (%s); the recipe's own rate is taken. Make it again with idea-engine check.", path, shown(error))
    return 1.0


def _rounded(value):
    return round(value, 4) if isinstance(value, float) else value
