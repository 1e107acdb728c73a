"""Runs in a host: trains a few steps and watches the clock and the memory. See benchmarks/training.py."""
from __future__ import annotations

import gc
import statistics
import threading

import torch

from . import pack
from .clock import clock_of
from .models import face, reduced_unet

_WARM_UP = 1  # steps; the first one pays for allocations and the optimizer's state
_MEGABYTE = 2**20


def measure(clip, vae, recipe: str, pixels: int, batch: int, steps: int) -> dict:
    """→ seconds per step, and the memory in MB that training takes beside the loaded models."""
    train = pack("idea_engine.train")
    model = reduced_unet()
    backend = pack("nodes.host.backend").ComfyBackend(model, clip, vae)
    (enhanced,) = pack("nodes.enhance").IDEnhancer().enhance(face(), clip, "words", "human face")
    photo = torch.rand(pixels, pixels, 3, generator=torch.Generator().manual_seed(0))
    config = train.TrainConfig(recipe=recipe, steps=_WARM_UP + steps, batch=batch, resolution=pixels)
    backend.load()
    weights = _read_all([model.model, clip.cond_stage_model, vae.first_stage_model])
    torch.set_num_threads(1)
    clock = clock_of(backend.device)
    ends: list[float] = []
    with _PeakMemory(backend.device) as memory:
        _, report = train.train(backend, enhanced, [photo], config, on_step=lambda event: ends.append(clock()))
    seconds = [late - early for early, late in zip(ends[_WARM_UP - 1:], ends[_WARM_UP:])]
    return {
        "recipe": recipe, "pixels": pixels, "batch": batch, "seconds_per_step": statistics.median(seconds), "step_seconds": seconds,
        "memory_mb": memory.over_start, "weights_mb": weights, "micro_batch": report.micro_batch, "checkpointing": report.checkpointing,
    }


def _read_all(modules) -> float:
    """The size of all weights in MB; reading them brings those that lie in a mapped file into memory."""
    tensors = [tensor for module in modules for tensor in module.state_dict().values()]
    for tensor in tensors:
        tensor.float().sum()
    return sum(tensor.nbytes for tensor in tensors) / _MEGABYTE


class _PeakMemory:
    """The most memory in use while open, over that in use at the start: of the process on the CPU, of PyTorch's tensors on a GPU."""

    def __init__(self, device: torch.device, every: float = 0.005):
        self.device, self.every = device, every
        self.over_start = 0.0  # MB

    def __enter__(self) -> "_PeakMemory":
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
        self.over_start = (self.peak - self.start) / _MEGABYTE
