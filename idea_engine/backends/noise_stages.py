"""The noise schedule in equal stages (SeFi-IDE, METHODS §2): which stage a timestep, or a noise level, belongs to."""
from __future__ import annotations

import math
from typing import Sequence

from torch import Tensor


def stage_of(timesteps: Tensor, count: int, schedule: int) -> Tensor:
    """Timesteps of a schedule of ``schedule`` steps → numbers of their stages, 0 (least noise) … ``count`` − 1."""
    return timesteps * count // schedule


def stage_bounds(sigmas: Sequence[float], count: int) -> tuple[float, ...]:
    """The ``count`` − 1 noise levels between the stages, rising.

    Args:
        sigmas: the noise level of every timestep, rising. Samplers also visit noise levels between those of two timesteps; such a level
            belongs to the nearer one, measured by ratio.
    """
    firsts = [math.ceil(stage * len(sigmas) / count) for stage in range(1, count)]  # the first timestep of each stage but the lowest
    return tuple(math.sqrt(sigmas[first - 1] * sigmas[first]) for first in firsts)


def stage_at(sigma: float, bounds: Sequence[float]) -> int:
    """The stage a noise level belongs to, given :func:`stage_bounds`."""
    return sum(sigma > bound for bound in bounds)
