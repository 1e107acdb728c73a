"""Whose turn it is while sampling is measured; in a host and on diffusers alike."""
from __future__ import annotations

from typing import Callable, Sequence, TypeVar

APPLIED = (1, 2, 4)  # identities
BARE, BARE_AGAIN = "bare", "bare again"  # what two equal cases differ by is the noise of the measurement
STAGES, MASK = "stages", "mask"
Measured = TypeVar("Measured")


def turns(*others: str) -> tuple[str, ...]:
    """The cases in their order: the bare model before and after all others, which are the applied counts and ``others``."""
    return (BARE, *map(str, APPLIED), *others, BARE_AGAIN)


def take_turns(names: Sequence[str], rounds: int, measure: Callable[[str], Measured]) -> dict[str, list[Measured]]:
    """Case → what ``measure`` says of it in every round; each round in the other direction, so that nobody is always first."""
    found: dict[str, list[Measured]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 else reversed(names):
            found[name].append(measure(name))
    return found
