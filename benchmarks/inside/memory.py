"""The most memory in use during a measurement."""
from __future__ import annotations

import gc
import threading

import torch

MEGABYTE = 2**20


class PeakMemory:
    """The most memory in use while open, over that in use at the start: of the process on the CPU, of PyTorch's tensors on a GPU."""

    def __init__(self, device: torch.device, every: float = 0.005):
        self.device, self.every = device, every
        self.over_start = 0.0  # MB

    def __enter__(self) -> "PeakMemory":
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self.start = torch.cuda.memory_allocated()
            return self
        import psutil

        self.process = psutil.Process()
        self.start = self.peak = self.process.memory_info().rss
        self.done = threading.Event()
        self.watcher = threading.Thread(target=self._watch, daemon=True)
        self.watcher.start()
        return self

    def _watch(self) -> None:
        while not self.done.wait(self.every):
            self.peak = max(self.peak, self.process.memory_info().rss)

    def __exit__(self, *exception) -> None:
        if self.device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated()
        else:
            self.done.set()
            self.watcher.join()
        self.over_start = (self.peak - self.start) / MEGABYTE
