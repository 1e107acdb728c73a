"""The prompts that people are judged by: scenes, actions and styles that no training prompt names."""
from __future__ import annotations

from pathlib import Path

from ..errors import EvaluationError
from .trigger import PLACEHOLDER

_SHIPPED = Path(__file__).parents[1] / "data" / "evaluation_prompts.txt"


def evaluation_prompts(file: str | Path | None = None) -> list[str]:
    """The prompts of a file, one per line, or those that ship.

    Raises:
        EvaluationError: one has no place for the person, or there is none.
    """
    lines = (Path(file) if file else _SHIPPED).read_text(encoding="utf-8").splitlines()
    prompts = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    wrong = [prompt for prompt in prompts if PLACEHOLDER not in prompt]
    if wrong or not prompts:
        raise EvaluationError(f"{file}: {f'the prompt {wrong[0]!r} has no {PLACEHOLDER}' if wrong else 'there is no prompt'}; expected one prompt per line with {PLACEHOLDER} for the person.")
    return prompts
