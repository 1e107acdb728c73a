"""Telling the artist how training goes: the host's progress bar with a preview, live messages, and the buttons Cancel and Stop."""
from __future__ import annotations

import math
import time
from typing import Any

from ...idea_engine.training.loop import StepEvent
from ...idea_engine.training.previews import Preview, Previews
from .live import LiveTraining

_MESSAGE_EVERY = 0.25  # seconds; a browser draws no faster
_PREVIEW_EVERY = 2.0  # seconds; a preview costs a small decode
_PREVIEW_FORMAT = "JPEG"
_LOSSES_SENT = 400  # the longest curve a message carries
EVENT = "idea.progress"
PREVIEW_EVENT = "idea.preview"


def check_interrupt() -> None:
    """Raise the host's own exception when the artist has pressed cancel."""
    import comfy.model_management as management

    management.throw_exception_if_processing_interrupted()


class TrainingProgress:
    """Called after every training step. In a ``with`` statement pages that are opened late see the training too, and can stop it."""

    def __init__(self, node_id: Any, steps: int, latent_format):
        from comfy.utils import ProgressBar

        self.node_id, self.steps = node_id, steps
        self.bar = ProgressBar(steps)
        self.previewer = _previewer(latent_format)
        self.started = time.monotonic()
        self.told = self.previewed = 0.0
        self.first: int | None = None  # step at which this run began; a resumed one does not begin at 0
        self.live = LiveTraining(node_id)

    def __enter__(self) -> "TrainingProgress":
        self.live.__enter__()
        return self

    def __exit__(self, *exception) -> None:
        self.live.__exit__(*exception)
        if exception[0] is None and self.stopping() and self.live.progress is not None:
            self.live.send(EVENT, {**self.live.progress, "state": "stopped"})

    def __call__(self, event: StepEvent) -> None:
        now, last = time.monotonic(), event.step == event.steps
        preview = None
        if self.previewer is not None and (last or now - self.previewed >= _PREVIEW_EVERY):
            preview, self.previewed = self._preview(event), now
        self.bar.update_absolute(event.step, event.steps, preview)
        if last or event.step == 1 or now - self.told >= _MESSAGE_EVERY:
            self.told = now
            self._send(event, now - self.started)
        check_interrupt()

    def previews(self, every: int, judge=None) -> Previews | None:
        """Previews with a fixed seed every so many steps, in the strip of the node; None for 0."""
        if not every:
            return None
        self.previewer = None  # the strip shows a better picture than the host would on the same node
        return Previews(every, judge, self.show)

    def show(self, preview: Preview) -> None:
        """Send one picture of the person to the pages."""
        from .images import to_data_url

        check_interrupt()
        self.live.preview = {
            "node": self.node_id, "step": preview.step, "likeness": preview.likeness, "image": to_data_url(preview.pictures[:1]),
        }
        self.live.send(PREVIEW_EVENT, self.live.preview)

    def stopping(self) -> bool:
        """Whether the artist wants the training to end with what it has."""
        return self.live.stopping()

    def _send(self, event: StepEvent, seconds: float) -> None:
        """Each message holds the recent losses, so a page that was opened late, or a resumed training, shows its whole curve."""
        self.first = event.step - 1 if self.first is None else self.first
        remaining = seconds / (event.step - self.first) * (event.steps - event.step)
        losses = [value if math.isfinite(value) else None for value in event.losses[-_LOSSES_SENT:]]  # JSON knows no NaN
        self.live.progress = {
            "node": self.node_id, "step": event.step, "steps": event.steps, "loss": losses[-1], "losses": losses, "remaining": remaining,
            "likenesses": [list(judged) for judged in event.likenesses], "state": "done" if event.step == event.steps else "running",
        }
        self.live.send(EVENT, self.live.progress)

    def _preview(self, event: StepEvent):
        image = self.previewer.decode_latent_to_preview(event.denoised)
        return (_PREVIEW_FORMAT, image, 256)


def _previewer(latent_format):
    """The host's cheap latent → picture projection, or None where this host has none; independent of the user's preview setting."""
    try:
        from latent_preview import Latent2RGBPreviewer
    except ImportError:
        try:
            from comfy.cmd.latent_preview import Latent2RGBPreviewer
        except ImportError:
            return None
    factors = getattr(latent_format, "latent_rgb_factors", None)
    if factors is None:
        return None
    bias = getattr(latent_format, "latent_rgb_factors_bias", None)
    try:
        return Latent2RGBPreviewer(factors, bias)
    except TypeError:  # older hosts know no bias
        return Latent2RGBPreviewer(factors)
