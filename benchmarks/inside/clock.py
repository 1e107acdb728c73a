"""The clock of all step times."""
from __future__ import annotations

import time
from typing import Callable, Sequence

import torch


def clock_of(device: torch.device) -> Callable[[], float]:
    """Seconds of this process on the CPU, where with one thread other programs hardly count; on a GPU the wall's, when its work is done."""
    if device.type == "cpu":
        return time.process_time

    def finished() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return finished


def between(ends: Sequence[float]) -> list[float]:
    """Seconds between the ends of consecutive steps; what comes before the end of the first is left out."""
    return [late - early for early, late in zip(ends, ends[1:])]
