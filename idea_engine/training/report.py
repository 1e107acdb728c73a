"""What a training says of itself: after every step, and at the end."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

from torch import Tensor


@dataclass(frozen=True)
class StepEvent:
    """One finished step.

    Attributes:
        step, steps: its number (from 1), and of how many.
        losses: of every step so far.
        denoised: the network's current idea of the photograph (1, C, h, w).
        likenesses: pairs (step, likeness) of the previews that were judged so far.
    """

    step: int
    steps: int
    losses: Sequence[float]
    denoised: Tensor
    likenesses: Sequence[Sequence[float]] = ()

    @property
    def loss(self) -> float:
        return self.losses[-1]


@dataclass(frozen=True)
class TrainReport:
    """What happened: losses per step, steps that were skipped, seconds of this run, and the memory compromises that were needed.

    ``stopped``: whether it was ended early; ``likenesses``: pairs (step, likeness) of what was judged; ``best_step``: which step is returned.
    """

    losses: tuple[float, ...]
    skipped: int
    resumed_at: int
    seconds: float
    micro_batch: int
    checkpointing: bool
    stopped: bool
    likenesses: tuple[tuple[int, float], ...]
    best_step: int
