"""What every training here shares: a cosine schedule, resumable checkpoints, a progress bar and a log."""
from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..cache import cache_folder


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        steps: optimiser steps in all.
        rate: the peak learning rate, after ``warmup`` steps; a cosine takes it to ``floor`` of the peak.
        average: decay of the weights' moving average, 0 for none.
        cooldown: fraction of the steps over which the rate falls; 1 is a cosine over the whole schedule, less keeps the
            rate flat first, so that the schedule can be lengthened and the average shipped at any time.
    """

    steps: int
    rate: float
    warmup: int = 100
    floor: float = 0.02
    average: float = 0.0
    cooldown: float = 1.0
    weight_decay: float = 1e-3
    seed: int = 0
    save_every: int = 500

    def factor(self, step: int) -> float:
        """The learning rate at a step, as a factor of the peak."""
        through = max(0.0, step / self.steps - (1 - self.cooldown)) / self.cooldown
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, through)))
        return min(1.0, (step + 1) / self.warmup) * (cosine * (1 - self.floor) + self.floor)


class Session:
    """One resumable training: owns the optimiser, the random state and the checkpoint; the caller owns the loss."""

    def __init__(self, name: str, modules: dict[str, nn.Module], schedule: Schedule, groups: list[dict] | None = None):
        """``groups``: optimiser groups with an optional ``boost`` (factor of the rate); all parameters when absent."""
        self.name, self.modules, self.schedule = name, modules, schedule
        parameters = [p for module in modules.values() for p in module.parameters()]
        groups = groups or [{"params": parameters}]
        self._parameters = [p for group in groups for p in group["params"]]
        self._optimiser = torch.optim.AdamW(groups, schedule.rate, betas=(0.9, 0.98), weight_decay=schedule.weight_decay, fused=True)
        self._path = cache_folder() / f"{name}.pt"
        self._log_path = cache_folder() / f"{name}.jsonl"
        self.step, self.seconds = 0, 0.0
        self._average = [p.detach().clone() for p in self._parameters] if schedule.average else None
        self.rng = np.random.default_rng(schedule.seed)
        torch.manual_seed(schedule.seed)
        if self._path.exists():
            self._resume()

    @property
    def finished(self) -> bool:
        return self.step >= self.schedule.steps

    def run(self, loss: Callable[[], tuple[Tensor, dict[str, float]]], until: int | None = None) -> None:
        """Step until the schedule ends (or ``until``). ``loss`` returns the scalar to minimise and figures to log."""
        stop = min(self.schedule.steps, until or self.schedule.steps)
        window: list[dict[str, float]] = []
        with tqdm(total=self.schedule.steps, initial=self.step, desc=self.name, mininterval=5) as bar:
            while self.step < stop:
                begun = time.monotonic()
                for group in self._optimiser.param_groups:
                    group["lr"] = self.schedule.rate * self.schedule.factor(self.step) * group.get("boost", 1.0)
                value, figures = loss()
                self._optimiser.zero_grad(set_to_none=True)
                value.backward()
                torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
                self._optimiser.step()
                self._accumulate()
                self.step += 1
                self.seconds += time.monotonic() - begun
                window.append({"loss": float(value.detach()), **figures})
                bar.update()
                if self.step % 100 == 0:
                    self._report(bar, window)
                    window = []
                if self.step % self.schedule.save_every == 0:
                    self.save()
        self.save()

    def averaged(self) -> None:
        """Replace the weights by their moving average: what is evaluated and shipped."""
        if self._average is not None:
            with torch.no_grad():
                for parameter, mean in zip(self._parameters, self._average):
                    parameter.copy_(mean)

    def save(self) -> None:
        """Write the checkpoint whole or not at all."""
        state = {
            "modules": {key: module.state_dict() for key, module in self.modules.items()},
            "optimiser": self._optimiser.state_dict(), "average": self._average,
            "step": self.step, "seconds": self.seconds, "torch_rng": torch.get_rng_state(),
            "numpy_rng": json.dumps(self.rng.bit_generator.state),
        }
        temporary = self._path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(self._path)

    def _resume(self) -> None:
        state = torch.load(self._path, weights_only=True)
        for key, module in self.modules.items():
            module.load_state_dict(state["modules"][key])
        self._optimiser.load_state_dict(state["optimiser"])
        self._average = state["average"]
        self.step, self.seconds = state["step"], state["seconds"]
        torch.set_rng_state(state["torch_rng"])
        self.rng.bit_generator.state = json.loads(state["numpy_rng"])

    def _accumulate(self) -> None:
        if self._average is None:
            return
        decay = min(self.schedule.average, (self.step + 1) / (self.step + 20))
        with torch.no_grad():
            torch._foreach_lerp_(self._average, [p.detach() for p in self._parameters], 1 - decay)

    def _report(self, bar: tqdm, window: list[dict[str, float]]) -> None:
        means = {key: float(np.mean([row[key] for row in window])) for key in window[0]}
        bar.set_postfix({key: f"{value:.4f}" for key, value in means.items()})
        with open(self._log_path, "a", encoding="utf-8") as log:
            log.write(json.dumps({"step": self.step, "seconds": round(self.seconds, 1), **{k: round(v, 5) for k, v in means.items()}}) + "\n")
