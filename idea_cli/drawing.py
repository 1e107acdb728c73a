"""Pictures from a pipeline with identities."""
from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch

from idea_engine.applying.applied import STARTS_AT
from idea_engine.errors import BadImageError

_STEPS, _GUIDANCE = 30, 6.0
_DEMO_GUIDANCE = 3.0  # of the Portrait World's own sampler


def drawing_arguments(parser: argparse.ArgumentParser) -> None:
    """``--steps``, ``--guidance``, ``--size``, ``--negative``, ``--strength`` …"""
    group = parser.add_argument_group("the pictures")
    group.add_argument("--steps", type=int, default=_STEPS, metavar="N", help="sampling steps (default: %(default)s)")
    group.add_argument("--guidance", type=float, default=0.0, metavar="SCALE", help=f"how strictly the prompt is followed (default: {_GUIDANCE:g})")
    group.add_argument("--size", default="", metavar="WIDTHxHEIGHT", help="in pixels, such as 512x768 (default: the model's own)")
    group.add_argument("--negative", default="", metavar="TEXT", help="what should not be in the picture")
    group.add_argument("--strength", type=float, default=1.0, help="of the identities: 1 as trained, towards 0 an average person, up to 2 exaggerated")
    group.add_argument("--start-at", type=float, default=STARTS_AT, metavar="SHARE", help=(
        "of the sampling, 0 to 1, from which the people act; 0: from the start, 0.2: follows prompts better and is a little less alike (default: %(default)s)"
    ))
    group.add_argument("--end-at", type=float, default=1.0, metavar="SHARE", help="of the sampling until which they act (default: 1)")


@dataclass(frozen=True)
class Drawing:
    """How pictures are drawn: resolved options. Sides in pixels; strength, start_at and end_at are those of every identity."""

    steps: int
    guidance: float
    width: int
    height: int
    negative: str
    strength: float
    start_at: float
    end_at: float

    @classmethod
    def of(cls, options: argparse.Namespace, model) -> "Drawing":
        """Raises: BadImageError: a size, a number of steps, a strength or a range that cannot be."""
        width = height = model.side
        if options.size:
            parts = options.size.lower().replace("×", "x").split("x")
            if len(parts) != 2 or not all(part.isdecimal() and 64 <= int(part) <= 4096 and int(part) % 8 == 0 for part in parts):
                raise BadImageError(f"--size is {options.size}, expected width x height in pixels, each a multiple of 8 from 64 to 4096, such as 512x768.")
            width, height = map(int, parts)
        if not 1 <= options.steps <= 1000:
            raise BadImageError(f"--steps is {options.steps}, expected 1 to 1000.")
        if not 0.0 <= options.strength <= 2.0:
            raise BadImageError(f"--strength is {options.strength}, expected 0 to 2.")
        for name, share in (("--start-at", options.start_at), ("--end-at", options.end_at)):
            if not 0.0 <= share <= 1.0:
                raise BadImageError(f"{name} is {share}, expected 0 to 1, a share of the sampling.")
        guidance = options.guidance or (_DEMO_GUIDANCE if model.demo else _GUIDANCE)
        return cls(options.steps, guidance, width, height, options.negative, options.strength, options.start_at, options.end_at)

    def acting(self, identity):
        """The identity as it is applied to a pipeline."""
        from idea_engine.applying.applied import AppliedIdentity

        return AppliedIdentity(identity, self.strength, self.start_at, self.end_at)

    def draw(self, pipe, prompt: str, seed: int):
        """One PIL picture; the same for the same seed, whatever was drawn before."""
        return pipe(
            prompt, negative_prompt=self.negative, num_inference_steps=self.steps, guidance_scale=self.guidance, width=self.width, height=self.height,
            generator=torch.Generator().manual_seed(seed),
        ).images[0]
