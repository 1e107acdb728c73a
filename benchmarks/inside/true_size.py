"""Runs in a host: a short training and a short sampling with the checkpoint that is loaded. See benchmarks/true_size.py."""
from __future__ import annotations

import math
import time

import torch

from . import pack
from .memory import MEGABYTE, PeakMemory
from .models import face, face_mask
from .sampling import _conditioning, _sample
from .training import _read_all


def measure(model, clip, vae, pixels: int, batch: int, training_steps: int, sampling_steps: int, threads: int) -> dict:
    """→ losses, seconds and the peak of memory: of the process in all, and beside the loaded weights."""
    train = pack("idea_engine.training.loop")
    torch.set_num_threads(threads)
    backend = pack("nodes.host.backend").ComfyBackend(model, clip, vae)
    (enhanced,) = pack("nodes.enhance").IDEnhancer().enhance(clip, "words", face(), "human face")
    backend.load()
    weights = _read_all([model.model, clip.cond_stage_model, vae.first_stage_model])
    photo = torch.rand(pixels, pixels, 3, generator=torch.Generator().manual_seed(0))
    # With a caption the model is not asked for the expression, which is twenty forward passes: minutes on a CPU.
    config = train.TrainConfig(recipe="fast", trigger="<anna>", steps=training_steps, batch=batch, resolution=pixels, captions=("in a garden",))
    marks = [time.process_time()]
    with PeakMemory(backend.device) as training:
        identity, report = train.train(backend, enhanced, [photo], config, masks=[face_mask(pixels)], on_step=lambda event: marks.append(time.process_time()))
    applied_model, applied_clip = pack("nodes.apply").ApplyIDAdapter().apply(model, clip, identity, 1.0, 0.0, 1.0)
    positive, negative = _conditioning(applied_clip, "a photo of <anna> in a garden"), _conditioning(applied_clip, "ugly")
    started = time.process_time()
    with PeakMemory(backend.device) as sampling:
        latent = _sample(applied_model, positive, negative, pixels, sampling_steps)
    sampling_seconds = time.process_time() - started
    assert all(math.isfinite(loss) for loss in report.losses) and bool(torch.isfinite(latent).all()), (report, latent)
    return {
        "unet_parameters": sum(p.numel() for p in model.model.diffusion_model.parameters()), "weights_mb": weights,
        "dtypes": {name: str(next(module.parameters()).dtype) for name, module in (("unet", model.model.diffusion_model), ("text", clip.cond_stage_model), ("vae", vae.first_stage_model))},
        "losses": list(report.losses), "micro_batch": report.micro_batch, "checkpointing": report.checkpointing,
        "prepare_and_first_step_seconds": marks[1] - marks[0], "training_step_seconds": [late - early for early, late in zip(marks[1:], marks[2:])],
        "sampling_step_seconds": sampling_seconds / sampling_steps, "latent": list(latent.shape),
        "training_memory_mb": training.over_start, "training_peak_mb": training.peak / MEGABYTE,
        "sampling_memory_mb": sampling.over_start, "sampling_peak_mb": sampling.peak / MEGABYTE,
    }
