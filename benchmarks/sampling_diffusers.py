"""What applied identities cost at each step of a diffusers pipeline: benchmarks/sampling.py without a ComfyUI."""
from __future__ import annotations

import statistics
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests" / "support")]

import torch  # noqa: E402

from idea_engine.applying.diffusers import applied  # noqa: E402
from idea_engine.backends.diffusers import DiffusersBackend  # noqa: E402
from inside.clock import between, clock_of  # noqa: E402
from inside.turns import APPLIED, BARE, BARE_AGAIN, STAGES, take_turns, turns  # noqa: E402
from tiny_identities import random_identity  # noqa: E402

_TURNS = turns(STAGES)
_PLAIN = "a photo of a cat"


def measure(pipe, pixels: int, rounds: int, steps: int) -> dict:
    """→ seconds per step in every round, by case, and how far four identities move the latent: 0 would mean that nothing was measured."""
    backend = DiffusersBackend(pipe)
    pipe.set_progress_bar_config(disable=True)
    clock = clock_of(backend.device)
    everybody = [random_identity(backend, f"<person{number}>", seed=number) for number in range(max(APPLIED))]
    cases: dict[str, list] = {BARE: [], BARE_AGAIN: [], STAGES: [random_identity(backend, "<staged>", recipe="sefi", seed=9)]}
    cases.update({str(count): everybody[:count] for count in APPLIED})

    def sample(prompt: str, steps: int) -> tuple[torch.Tensor, list[float]]:
        """The latent, and the seconds of every step but the first."""
        ends: list[float] = []

        def ended(pipe, step, time, values) -> dict:
            ends.append(clock())
            return {}

        latent = pipe(
            prompt, negative_prompt="ugly", num_inference_steps=steps, guidance_scale=7.0, width=pixels, height=pixels, output_type="latent",
            generator=torch.Generator().manual_seed(0), callback_on_step_end=ended,
        ).images
        return latent, between(ends)

    def turn(name: str, steps: int) -> tuple[torch.Tensor, list[float]]:
        people = cases[name]
        with applied(pipe, people):
            return sample(f"a photo of {', '.join(one.trigger for one in people)}" if people else _PLAIN, steps)

    with _threads(1 if backend.device.type == "cpu" else torch.get_num_threads()):
        for name in _TURNS:
            turn(name, 1)  # warm up
        seconds = take_turns(_TURNS, rounds, lambda name: statistics.median(turn(name, steps)[1]))
        prompt = f"a photo of {everybody[0].trigger}"
        with applied(pipe, everybody):
            moved = sample(prompt, 1)[0]
        effect = float((moved - sample(prompt, 1)[0]).abs().max())
    return {"seconds": seconds, "effect": effect}


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
