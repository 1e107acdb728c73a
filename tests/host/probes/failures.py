"""Trainings that go wrong, on the host's real models."""
import dataclasses
import math

import torch


def nan_after(probe):
    """a, b, c: MODEL, CLIP, VAE; d: EnhancedIdentity; arguments: steps → never returns: the loss is NaN from then on."""
    train = probe.module("idea_engine.train")
    backend = probe.module("nodes.host.backend").ComfyBackend(probe.a, probe.b, probe.c)
    good, calls = backend.predict, []

    def predict(*args):
        calls.append(1)
        found = good(*args)
        return dataclasses.replace(found, output=found.output * math.nan) if len(calls) > probe.arguments["steps"] else found

    backend.predict = predict
    train.train(backend, probe.d, [torch.rand(64, 64, 3)], train.TrainConfig(steps=9, batch=1, resolution=64))


def out_of_memory(probe):
    """a … d as above; memory for one picture at a time only → micro batch and losses."""
    train = probe.module("idea_engine.train")
    backend = probe.module("nodes.host.backend").ComfyBackend(probe.a, probe.b, probe.c)
    good = backend.predict

    def predict(latents, *rest):
        if len(latents) > 1:
            raise torch.OutOfMemoryError("no memory left on the device")
        return good(latents, *rest)

    backend.predict = predict
    _, report = train.train(backend, probe.d, [torch.rand(64, 64, 3)], train.TrainConfig(steps=2, batch=4, resolution=64))
    return {"micro_batch": report.micro_batch, "losses": list(report.losses), "checkpointing": report.checkpointing}
