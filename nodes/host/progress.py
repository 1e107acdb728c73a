"""Telling the artist how training goes: the host's progress bar with a preview, live messages, and its cancel button."""
from __future__ import annotations

import time
from typing import Any

from ...idea_engine.train import StepEvent

_MESSAGE_EVERY = 0.25  # seconds; a browser draws no faster
_PREVIEW_EVERY = 2.0  # seconds; a preview costs a small decode
_PREVIEW_FORMAT = "JPEG"
EVENT = "idea.progress"


def check_interrupt() -> None:
    """Raise the host's own exception when the artist has pressed cancel."""
    import comfy.model_management as management

    management.throw_exception_if_processing_interrupted()


class TrainingProgress:
    """Called after every training step."""

    def __init__(self, node_id: Any, steps: int, latent_format):
        from comfy.utils import ProgressBar

        self.node_id, self.steps = node_id, steps
        self.bar = ProgressBar(steps)
        self.previewer = _previewer(latent_format)
        self.losses: list[float] = []
        self.started = time.monotonic()
        self.told = self.previewed = 0.0

    def __call__(self, event: StepEvent) -> None:
        self.losses.append(event.loss)
        now, last = time.monotonic(), event.step == event.steps
        preview = None
        if self.previewer is not None and (last or now - self.previewed >= _PREVIEW_EVERY):
            preview, self.previewed = self._preview(event), now
        self.bar.update_absolute(event.step, event.steps, preview)
        if last or event.step == 1 or now - self.told >= _MESSAGE_EVERY:
            self.told = now
            self._send(event, now - self.started)
        check_interrupt()

    def _send(self, event: StepEvent, seconds: float) -> None:
        """One message holds every loss since the last, so a page that listens misses none."""
        from server import PromptServer

        server = getattr(PromptServer, "instance", None)
        if server is not None:
            done = len(self.losses)
            remaining = seconds / done * (event.steps - event.step)
            losses = [value if value == value else None for value in self.losses[-200:]]  # NaN is no JSON
            server.send_sync(EVENT, {
                "node": self.node_id, "step": event.step, "steps": event.steps, "loss": losses[-1], "losses": losses, "remaining": remaining,
            })

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
