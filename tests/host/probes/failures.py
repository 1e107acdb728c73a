"""Trainings that go wrong, on the host's real models."""
import dataclasses
import math

import torch


def nan_after(probe):
    """a, b, c: MODEL, CLIP, VAE; d: EnhancedIdentity; arguments: steps → never returns: the loss is NaN from then on."""
    train = probe.module("idea_engine.training.loop")
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
    train = probe.module("idea_engine.training.loop")
    backend = probe.module("nodes.host.backend").ComfyBackend(probe.a, probe.b, probe.c)
    good = backend.predict

    def predict(latents, *rest):
        if len(latents) > 1:
            raise torch.OutOfMemoryError("no memory left on the device")
        return good(latents, *rest)

    backend.predict = predict
    _, report = train.train(backend, probe.d, [torch.rand(64, 64, 3)], train.TrainConfig(steps=2, batch=4, resolution=64))
    return {"micro_batch": report.micro_batch, "losses": list(report.losses), "checkpointing": report.checkpointing}


def first_step_is_nan(probe):
    """a … d as above; TrainIDEA itself, whose first step has no finite loss → what it says at its end."""
    kind = probe.module("nodes.host.backend").ComfyBackend
    good, calls = kind.predict, []

    def predict(self, *args):
        calls.append(1)
        found = good(self, *args)
        return dataclasses.replace(found, output=found.output * math.nan) if len(calls) == 1 else found

    kind.predict = predict
    try:
        node = probe.module("nodes.train").TrainIDEA()
        said = node.train(probe.a, probe.b, probe.c, torch.rand(1, 64, 64, 3), probe.d, "<anna>", "released", 3, 1, 0.0, 64, 77)
    finally:
        kind.predict = good
    return {"text": said["ui"]["text"][0]}


def fill_the_disk(probe):
    """From now on no identity can be written; :func:`make_room` ends it."""
    files = probe.module("idea_engine.identity.file")

    def full(path, write):
        raise OSError(28, "No space left on device")

    files.room, files.atomic_write = files.atomic_write, full


def make_room(probe):
    """Undo :func:`fill_the_disk`."""
    files = probe.module("idea_engine.identity.file")
    files.atomic_write = files.room
