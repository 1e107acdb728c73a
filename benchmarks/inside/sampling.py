"""Runs in a host: times the steps of its sampler. See benchmarks/sampling.py."""
from __future__ import annotations

import statistics
import time
from typing import Callable

import torch

from . import pack
from .clock import between, clock_of
from .models import identity, reduced_unet
from .turns import APPLIED, BARE, BARE_AGAIN, MASK, STAGES, take_turns, turns

_PLAIN = "a photo of a man, a boy, a girl and a cat in a garden at noon"


def measure(clip, vae, pixels: int, rounds: int, steps: int) -> dict:
    """→ seconds per step in every round, by case; and of these, those inside the pack's own attention patch."""
    model = reduced_unet()
    torch.set_num_threads(1)
    bare = (model, _conditioning(clip, _PLAIN), _conditioning(clip, "ugly"))
    cases = {BARE: bare, BARE_AGAIN: bare}
    starts_at = pack("idea_engine.applying.applied").STARTS_AT  # so every prompt is held with and without its people
    applied_model, applied_clip, triggers = model, clip, []
    for number in range(1, max(APPLIED) + 1):
        person = identity(clip, model, number)
        applied_model, applied_clip = pack("nodes.apply").ApplyIDAdapter().apply(applied_model, applied_clip, person, 1.0, starts_at, 1.0)
        triggers.append(person.trigger)
        if number in APPLIED:
            positive = _conditioning(applied_clip, f"a photo of {', '.join(triggers)} in a garden")
            cases[str(number)] = (applied_model, positive, _conditioning(applied_clip, "ugly"))
    staged = identity(clip, model, 9, stages=5)
    staged_model, staged_clip = pack("nodes.apply").ApplyIDAdapter().apply(model, clip, staged, 1.0, 0.0, 1.0)
    positive = _conditioning(staged_clip, f"a photo of {staged.trigger} in a garden")
    cases[STAGES] = (staged_model, positive, _conditioning(staged_clip, "ugly"))
    masked = identity(clip, model, 10)
    half = torch.zeros(1, 64, 64)
    half[:, :, :32] = 1.0
    masked_model, masked_clip = pack("nodes.apply").ApplyIDAdapterAdvanced().apply(model, clip, masked, 1.0, 1.0, 1.0, 0.0, 1.0, mask=half)
    positive = _conditioning(masked_clip, f"a photo of {masked.trigger} in a garden")
    cases[MASK] = (masked_model, positive, _conditioning(masked_clip, "ugly"))
    lengths = {name: positive[0][0].shape[1] for name, (_, positive, _) in cases.items()}
    assert len(set(lengths.values())) == 1, lengths  # only equal contexts can be compared
    clock = clock_of(model.load_device)
    for case in cases.values():
        _sample(*case, pixels, 1)  # warm up
    with _PatchClock(time.process_time if model.load_device.type == "cpu" else time.perf_counter) as patch:

        def turn(name: str) -> tuple[float, float]:
            patch.seconds = 0.0
            seconds = statistics.median(_step_seconds(*cases[name], pixels, steps, clock))
            return seconds, patch.seconds / steps

        found = take_turns(turns(STAGES, MASK), rounds, turn)
    whole, inside = ({name: [pair[kind] for pair in pairs] for name, pairs in found.items()} for kind in (0, 1))
    return {"seconds": whole, "patch_seconds": inside, "effect": _effect(cases, pixels)}


class _PatchClock:
    """While open, adds up the time inside `nodes/host/attention.py` (on a GPU: of Python and of starting kernels)."""

    def __init__(self, clock: Callable[[], float]):
        self.clock = clock

    def __enter__(self) -> "_PatchClock":
        self.seconds = 0.0
        self.patched = pack("nodes.host.attention").IdentityAttention
        self.original = original = self.patched.__call__

        def timed(attention, *args):
            started = self.clock()
            try:
                return original(attention, *args)
            finally:
                self.seconds += self.clock() - started

        self.patched.__call__ = timed
        return self

    def __exit__(self, *exception) -> None:
        self.patched.__call__ = self.original


def _conditioning(clip, text: str) -> list:
    condition, pooled = clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)
    return [[condition, {"pooled_output": pooled}]]


def _step_seconds(model, positive, negative, pixels: int, steps: int, clock: Callable[[], float]) -> list[float]:
    """Of every step but the first, with which goes what the host prepares."""
    ends: list[float] = []
    _sample(model, positive, negative, pixels, steps, lambda *ignored: ends.append(clock()))
    return between(ends)


def _sample(model, positive, negative, pixels: int, steps: int, callback=None):
    import comfy.sample

    latent = torch.zeros(1, 4, pixels // 8, pixels // 8)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))
    return comfy.sample.sample(
        model, noise, steps, 7.0, "euler", "normal", positive, negative, latent, callback=callback, disable_pbar=True, seed=0
    )


def _effect(cases: dict, pixels: int) -> float:
    """How far the keys and values of four identities move the latent: 0 would mean that nothing was measured."""
    model, positive, negative = cases[str(max(APPLIED))]
    bare, moved = (_sample(one, positive, negative, pixels, 2) for one in (cases[BARE][0], model))  # in the first step nobody is there yet
    return float((moved - bare).abs().max())
