"""Switches the stand-in of `tests/host/dynamic_vram_pack` on and off in a running host; looks at models under it."""
import contextlib
import importlib.util
import sys
from pathlib import Path

_NAME = "idea_dynamic_vram_pack"


def _pack():
    """The pack, loaded once in a process: it must remember what it replaced."""
    if _NAME not in sys.modules:
        path = Path(__file__).resolve().parent.parent / "dynamic_vram_pack" / "__init__.py"
        spec = importlib.util.spec_from_file_location(_NAME, path)
        sys.modules[_NAME] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[_NAME])
    return sys.modules[_NAME]


def is_possible(probe):
    """Whether this host has dynamic patchers."""
    return _pack().is_possible()


def play(probe):
    """arguments: what the pack's `play` takes."""
    _pack().play(**probe.arguments)


def stop(probe):
    import comfy.model_management as management

    management.unload_all_models()
    _pack().stop()


def models(probe):
    """a, b, c: MODEL, CLIP, VAE → whether each is dynamic, how many of its layers get their weights from outside, and
    how many others that are not dynamic the host holds."""
    import comfy.model_management as management

    patchers = (probe.a, probe.b.patcher, probe.c.patcher)
    return {
        "dynamic": [patcher.is_dynamic() for patcher in patchers],
        "staged": [sum(hasattr(module, "_v") for module in patcher.model.modules()) for patcher in patchers],
        "plain_held": sum(not loaded.model.is_dynamic() for loaded in management.current_loaded_models),
    }


def hashes(probe):
    """a, b, c: MODEL, CLIP, VAE → the content hashes that a training is named by."""
    backend = probe.module("nodes.host.backend").ComfyBackend(probe.a, probe.b, probe.c)
    return {"model": backend.model_hash(), "text": backend.text_hash, "vae": backend.vae_hash()}


def unknown_loader(probe):
    """a: MODEL, b: CLIP → the same, as from a loader that does not say how to load them again."""
    model, clip = probe.a.clone(), probe.b.clone()
    model.cached_patcher_init = clip.patcher.cached_patcher_init = None
    return {"outputs": (model, clip)}


def changed_file(probe):
    """a: MODEL, b: CLIP → the same, whose files have changed since: one number of a weight is another."""

    def again(init):
        def load(disable_dynamic=False):
            made = init[0](*init[1], disable_dynamic=disable_dynamic)
            made = made[init[2]] if len(init) > 2 else made
            weight = next(parameter for parameter in made.model.parameters() if parameter.ndim > 1)
            weight.data.view(-1)[0] += 1.0
            return made

        return load, ()

    model, clip = probe.a.clone(), probe.b.clone()
    for patcher in (model, clip.patcher):
        patcher.cached_patcher_init = again(patcher.cached_patcher_init)
    return {"outputs": (model, clip)}


def without_twins(probe):
    """arguments: on. While on, trainings use what is connected, as if its weights lay open and lasted."""
    backend, own = probe.module("nodes.host.backend"), probe.module("nodes.host.plain_weights")
    on = probe.arguments["on"]
    backend.plain = (lambda patcher, socket: patcher) if on else own.plain
    backend.plain_clip = (lambda clip: clip) if on else own.plain_clip
    backend.lasting_casts = contextlib.nullcontext if on else own.lasting_casts
