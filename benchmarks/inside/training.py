"""Runs in a host: trains a few steps and watches the clock and the memory. See benchmarks/training.py."""
from __future__ import annotations

import statistics

import torch

from . import pack
from .clock import between, clock_of
from .memory import MEGABYTE, PeakMemory
from .models import face, face_mask, reduced_unet

_WARM_UP = 1  # steps; the first one pays for allocations and the optimizer's state


def measure(clip, vae, recipe: str, pixels: int, batch: int, steps: int) -> dict:
    """→ seconds per step, and the memory in MB that training takes beside the loaded models."""
    train = pack("idea_engine.training.loop")
    model = reduced_unet()
    backend = pack("nodes.host.backend").ComfyBackend(model, clip, vae)
    (enhanced,) = pack("nodes.enhance").IDEnhancer().enhance(clip, "words", face(), "human face")
    photo = torch.rand(pixels, pixels, 3, generator=torch.Generator().manual_seed(0))
    config = train.TrainConfig(recipe=recipe, steps=_WARM_UP + steps, batch=batch, resolution=pixels)
    backend.load()
    weights = _read_all([model.model, clip.cond_stage_model, vae.first_stage_model])
    torch.set_num_threads(1)
    clock = clock_of(backend.device)
    ends: list[float] = []
    with PeakMemory(backend.device) as memory:
        _, report = train.train(backend, enhanced, [photo], config, masks=[face_mask(pixels)], on_step=lambda event: ends.append(clock()))
    seconds = between(ends[_WARM_UP - 1:])
    return {
        "recipe": recipe, "pixels": pixels, "batch": batch, "seconds_per_step": statistics.median(seconds), "step_seconds": seconds,
        "memory_mb": memory.over_start, "weights_mb": weights, "micro_batch": report.micro_batch, "checkpointing": report.checkpointing,
    }


def _read_all(modules) -> float:
    """The size of all weights in MB; reading them brings those that lie in a mapped file into memory."""
    tensors = [tensor for module in modules for tensor in module.state_dict().values()]
    for tensor in tensors:
        tensor.float().sum()
    return sum(tensor.nbytes for tensor in tensors) / MEGABYTE
