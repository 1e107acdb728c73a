"""The benchmark's FaceCLIP row: nothing is learned; the photographs are read together with every prompt, and drawn."""
from __future__ import annotations

import resource
import time
from functools import lru_cache

import torch

from . import assets, captions, noise
from .autoencoder import SD_SCALE, to_pictures

STEPS, GUIDANCE = 20, 3.0  # as every other row


@lru_cache(maxsize=1)
def _encoder():
    from .faceclip import load

    return load()


@lru_cache(maxsize=1)
def _unet():
    from .pipeline import unet

    return unet()


@torch.no_grad()
def draw(face, shots, seed: int, steps: int = STEPS):
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
    start = torch.randn(len(shots), 4, 16, 16, generator=torch.Generator().manual_seed(1000 + seed))
    predict = lambda latents, timestep, both: _unet()(latents, timestep, both).sample
    latents = noise.sample(predict, condition, empty, start, steps=steps, guidance=GUIDANCE)
    return to_pictures(assets.autoencoder().decode(latents / SD_SCALE))


def run(face, shots, seed: int):
    """A Trial of one person; its seconds are those of reading the face, for there is no training."""
    from .trial import Trial

    _encoder(), _unet()  # opened once, not part of any person's time
    begun = time.perf_counter()
    with torch.no_grad():
        _encoder().encode(face.crops.permute(0, 3, 1, 2), ["a photo of a person"], face.weights.tolist())
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    # the model is untouched: no prompt without a face drifts
    return Trial(draw(face, shots, seed), drift=0.0, seconds=seconds, peak_megabytes=peak)
