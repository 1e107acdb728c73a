"""The random choices of one training step."""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Sequence

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """The random choices of one step, on the CPU: which latents, prompts and timesteps (each (B,)), and the noise (B, C, h, w)."""

    pictures: Tensor
    prompts: Tensor
    timesteps: Tensor
    noise: Tensor


def draw_batch(
    seed: int, step: int, size: int, pictures: int, prompts: int, shape: Sequence[int], timesteps: int, distinct: int = 0,
    span: tuple[float, float] | None = None,
) -> Batch:
    """The same choices for the same seed and step on any device, whatever ran before; this is what makes a resumed training equal.

    Args:
        distinct: how many different prompts the batch may mix; 0 for one each.
        span: the part of the schedule, as shares of it, that the timesteps are spread over evenly: each picture of a batch has a slice of
            its own, and a random place in it. None draws every timestep from the whole schedule.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)

    def pick(high: int, count: int) -> Tensor:
        return torch.randint(high, (count,), generator=generator)

    picked = pick(pictures, size)
    texts = pick(prompts, distinct or size)
    return Batch(
        pictures=picked,
        prompts=texts.repeat(math.ceil(size / len(texts)))[:size],
        timesteps=pick(timesteps, size) if span is None else spread_timesteps(torch.rand(size, generator=generator), timesteps, span),
        noise=torch.randn(size, *shape, generator=generator),
    )


def spread_timesteps(places: Tensor, timesteps: int, span: tuple[float, float]) -> Tensor:
    """(B,) places in 0..1, each inside a slice of its own → (B,) timesteps."""
    low, high = span
    shares = low + (high - low) * (torch.arange(len(places)) + places) / len(places)
    return (shares * timesteps).long().clamp(max=timesteps - 1)
