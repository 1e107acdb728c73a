"""The clock of all step times."""
from __future__ import annotations

import time
from typing import Callable

import torch


def clock_of(device: torch.device) -> Callable[[], float]:
    """Seconds of this process on the CPU, where with one thread other programs hardly count; on a GPU the wall's, when its work is done."""
    if device.type == "cpu":
        return time.process_time

    def finished() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return finished
