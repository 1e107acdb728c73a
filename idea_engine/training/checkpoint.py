"""An interrupted training on disk, so that the next queue goes on where this one stopped."""
from __future__ import annotations

import json
import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from ..files.atomic_write import atomic_write
from ..files.foreign_text import parsed_json

SAVE_SECONDS = 60.0  # what a killed process may lose
_SAVE_SHARE = 0.05  # of the time, at most, for saving: the recipe paper keeps gigabytes on large models
_log = logging.getLogger(__name__)


@dataclass
class Progress:
    """Where a training stands: everything besides the weights that the next step, or the choice of the best one, depends on.

    ``likenesses`` are pairs of a step and the likeness measured after it.
    """

    step: int
    losses: list[float]
    skipped: int
    loss_scale: float
    likenesses: list[list[float]] = field(default_factory=list)


class Checkpoint:
    """One training, in one file named by the hash of everything that determines its result."""

    def __init__(self, path: Path, seconds: float | None = None, trigger: str = ""):
        """Args: seconds: least time between two saves of a running training, which may be killed; by default a minute. Saving takes at most a
        twentieth of the time, however long it is; an interrupted training is saved in any case.
        trigger: whose training it is, so that it can be found when the person is to be forgotten.
        """
        self.trigger = trigger
        self.path, self.seconds = Path(path), SAVE_SECONDS if seconds is None else seconds
        self.kept: int | None = None  # the step that the file holds, as far as this process knows
        self._saved = time.monotonic()  # when the last save ended
        self._cost = 0.0  # seconds that it took

    def due(self, step: int) -> bool:
        """Whether a running training that has done ``step`` steps should be saved now."""
        return step > 0 and time.monotonic() - self._saved >= max(self.seconds, self._cost / _SAVE_SHARE)

    def save(self, module: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, best: dict[str, Tensor] | None = None) -> None:
        """Write weights, optimizer state and progress; a failure is logged, never raised, for it happens while another error is under way.

        Args: best: the weights of the most alike step so far, by the parameters' names; empty when none was judged.
        """
        from safetensors.torch import save_file

        started = time.monotonic()
        tensors = {f"module.{name}": p.detach().cpu().contiguous() for name, p in module.named_parameters() if p.requires_grad}
        tensors |= {f"best.{name}": value.contiguous() for name, value in (best or {}).items()}
        for index, parameter in enumerate(_optimized(optimizer)):
            for name, value in optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{index}.{name}"] = value.detach().cpu().clone().contiguous()
        try:
            metadata = {"progress": json.dumps(vars(progress)), "idea.trigger": self.trigger}
            atomic_write(self.path, lambda path: save_file(tensors, path, metadata=metadata))
            self.kept = progress.step
        except Exception as error:  # safetensors raises its own kind for a full disk
            _log.warning("The interrupted training could not be kept for resuming: %s", error)
        self._saved = time.monotonic()
        self._cost = self._saved - started

    def load(self, module: nn.Module, optimizer: torch.optim.Optimizer, best: dict[str, Tensor] | None = None) -> Progress | None:
        """Restore what :meth:`save` wrote; None when there is nothing, or nothing usable, to resume.

        Args: best: takes up the weights of the most alike step.
        """
        from safetensors import SafetensorError, safe_open

        if not self.path.is_file():
            return None
        try:
            with safe_open(str(self.path), framework="pt", device="cpu") as file:
                progress = Progress(**parsed_json(file.metadata()["progress"]))
                tensors: dict[str, Tensor] = {name: file.get_tensor(name).clone() for name in file.keys()}  # views of the mapped file
            weights = {name: p for name, p in module.named_parameters() if p.requires_grad}
            for name, parameter in weights.items():
                kept = [tensors[f"module.{name}"], *([tensors[f"best.{name}"]] if progress.likenesses else [])]
                if any(tensor.shape != parameter.shape for tensor in kept):
                    raise ValueError(f"{name} has another shape")
        except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
            _log.warning("An interrupted training could not be resumed and starts anew: %s", error)
            return None
        with torch.no_grad():
            for name, parameter in weights.items():
                parameter.copy_(tensors[f"module.{name}"])
        if best is not None and progress.likenesses:
            best.update({name: tensors[f"best.{name}"] for name in weights})
        for index, parameter in enumerate(_optimized(optimizer)):
            prefix = f"optimizer.{index}."
            state = {name[len(prefix):]: value for name, value in tensors.items() if name.startswith(prefix)}
            if state:
                # AdamW keeps its step counter where the parameter is only when fused or capturable; its loader knows.
                optimizer.state[parameter] = {
                    name: value if name == "step" and not optimizer.defaults.get("fused") else value.to(parameter.device)
                    for name, value in state.items()
                }
        self.kept = progress.step
        return progress

    def clear(self) -> None:
        """Forget the interrupted training, because it has finished."""
        self.kept = None
        with suppress(OSError):  # Windows deletes no file in use
            self.path.unlink()


def _optimized(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
