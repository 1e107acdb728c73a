"""The benchmark's FaceCLIP row: nothing is learned; the photographs are read together with every prompt, and drawn."""
from __future__ import annotations

import time
from functools import lru_cache

import torch

from ..world import captions
from . import sampler as drawing


@lru_cache(maxsize=1)
def _encoder():
    from ..faceclip import load

    return load()


@lru_cache(maxsize=1)
def _unet():
    from ..pipeline import unet

    return unet()


@torch.no_grad()
def draw(face, shots, seed: int, steps: int = drawing.STEPS):
    """One person in many shots.

    Args:
        face: the engine's FaceEmbedding of the person; several photographs are blended.
        shots: Shots, whose prompts say 'a person'.
        seed: of the start noise, which is the other rows'.

    Returns:
        (len(shots), 128, 128, 3) uint8.
    """
    encoder = _encoder()
    prompts = [captions.prompt("a person", shot) for shot in shots]
    condition, _ = encoder.encode(face.crops.permute(0, 3, 1, 2), prompts, face.weights.tolist())
    empty, _ = encoder.encode(None, [""])
    return drawing.draw(lambda latents, timestep, both: _unet()(latents, timestep, both).sample, condition, empty, seed, steps)


@torch.no_grad()
def seconds_to_read(face) -> float:
    """How long it takes to read a person's face with one prompt."""
    _encoder(), _unet()  # opened once, not part of any person's time
    begun = time.perf_counter()
    _encoder().encode(face.crops.permute(0, 3, 1, 2), ["a photo of a person"], face.weights.tolist())
    return time.perf_counter() - begun
