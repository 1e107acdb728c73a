"""Runs in a host: times the steps of its sampler. See benchmarks/sampling.py."""
from __future__ import annotations

import statistics
import time

import torch

from . import pack
from .models import identity, reduced_unet

APPLIED = (0, 1, 2, 4)  # identities
_PLAIN = "a photo of a man, a boy, a girl and a cat in a garden at noon"


def measure(clip, vae, pixels: int, rounds: int, steps: int) -> dict:
    """→ seconds per step in every round, by number of applied identities."""
    model = reduced_unet()
    cases = {0: (model, _conditioning(clip, _PLAIN), _conditioning(clip, "ugly"))}
    applied_model, applied_clip, triggers = model, clip, []
    for number in range(1, max(APPLIED) + 1):
        person = identity(clip, model, number)
        applied_model, applied_clip = pack("nodes.apply").ApplyIDAdapter().apply(applied_model, applied_clip, person, 1.0, 0.0, 1.0)
        triggers.append(person.trigger)
        if number in APPLIED:
            cases[number] = (applied_model, _conditioning(applied_clip, f"a photo of {', '.join(triggers)} in a garden"), _conditioning(applied_clip, "ugly"))
    lengths = {number: positive[0][0].shape[1] for number, (_, positive, _) in cases.items()}
    assert len(set(lengths.values())) == 1, lengths  # only equal contexts can be compared
    seconds: dict[int, list[float]] = {number: [] for number in APPLIED}
    for case in cases.values():
        _step_seconds(*case, pixels, steps)  # warm up
    for number in range(rounds):
        turn = number % len(APPLIED)
        for applied in APPLIED[turn:] + APPLIED[:turn]:  # nobody is always first
            seconds[applied].append(statistics.median(_step_seconds(*cases[applied], pixels, steps)))
    return {"seconds": seconds, "effect": _effect(cases, pixels)}


def _conditioning(clip, text: str) -> list:
    condition, pooled = clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)
    return [[condition, {"pooled_output": pooled}]]


def _step_seconds(model, positive, negative, pixels: int, steps: int) -> list[float]:
    """Seconds between the ends of consecutive steps; what the host prepares before the first step is left out."""
    ends: list[float] = []

    def at_end(*ignored):
        if model.load_device.type == "cuda":
            torch.cuda.synchronize()
        ends.append(time.perf_counter())

    _sample(model, positive, negative, pixels, steps, at_end)
    return [late - early for early, late in zip(ends, ends[1:])]


def _sample(model, positive, negative, pixels: int, steps: int, callback=None):
    import comfy.sample

    latent = torch.zeros(1, 4, pixels // 8, pixels // 8)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))
    return comfy.sample.sample(
        model, noise, steps, 7.0, "euler", "normal", positive, negative, latent, callback=callback, disable_pbar=True, seed=0
    )


def _effect(cases: dict, pixels: int) -> float:
    """How far the keys and values of four identities move the latent: 0 would mean that nothing was measured."""
    model, positive, negative = cases[max(cases)]
    bare = _sample(cases[0][0], positive, negative, pixels, 1)
    return float((_sample(model, positive, negative, pixels, 1) - bare).abs().max())
