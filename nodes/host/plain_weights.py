"""Weights that lie open: what a backward pass needs, and what content hashes are made of.

Since 2026 ComfyUI's loaders give *dynamic* patchers on graphics cards. Their layers get the weights for the moment
in which they run, from memory that the next layer may overwrite, with LoRAs mixed in on the way; the modules
themselves hold what stands in the file. A gradient through such a layer fails, or comes out wrong without a word.
The host's own way out is a twin that is not dynamic, rebuilt from the file with the patches of the graph on it.
The VAE needs none: no gradient passes through it, and the host runs it as it runs it everywhere.
"""
from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator

import torch
from torch import Tensor, nn

from ...idea_engine.errors import UnsupportedModelError

_MODEL_DTYPE = "_comfy_model_dtype"  # after a weight's name: the model's precision, where a module may hold the file's


def hides_weights(patcher) -> bool:
    """Whether the host gives the layers of ``patcher`` their weights only while they run."""
    return _is_dynamic(patcher) or any(hasattr(module, "_v") for module in patcher.model.modules())


def check_can_be_plain(patcher, socket: str) -> None:
    """Say at once if :func:`plain` could not do its work.

    Args:
        socket: MODEL or CLIP, for the sentence.

    Raises:
        UnsupportedModelError: the weights are hidden, and a twin could not be made, or would lack a part of the graph.
    """
    if not hides_weights(patcher):
        return
    found = f"ComfyUI keeps the weights of the {socket} where gradients cannot reach them (dynamic VRAM)"
    if getattr(patcher, "cached_patcher_init", None) is None:
        raise UnsupportedModelError(
            f"{found}, and the node that loaded it did not say how to load it again. Load the file with a loader of "
            "ComfyUI itself, such as Load Checkpoint, or start ComfyUI with --disable-dynamic-vram."
        )
    if getattr(patcher, "injections", None):
        raise UnsupportedModelError(
            f"{found}, and {', '.join(map(str, patcher.injections))} changes its layers from outside, which a copy "
            "would lack. Use Load LoRA instead of a LoRA in bypass mode, or start ComfyUI with --disable-dynamic-vram."
        )


def plain(patcher, socket: str):
    """``patcher`` itself if its weights lie open, else a twin whose weights do: loaded again, with the graph's patches.

    Raises: UnsupportedModelError: see :func:`check_can_be_plain`.
    """
    check_can_be_plain(patcher, socket)
    if not hides_weights(patcher):
        return patcher
    how = {"disable_dynamic": True} if _is_dynamic(patcher) else {"force_deepcopy": True}
    with torch.inference_mode():  # as the host itself loads
        twin = patcher.clone(**how)
        _cast_to_model_dtypes(twin.model)
    return twin


def plain_clip(clip):
    """``clip`` itself if its weights lie open, else a clone around the :func:`plain` twin of its patcher.

    Raises: UnsupportedModelError: see :func:`check_can_be_plain`.
    """
    patcher = plain(clip.patcher, "CLIP")
    if patcher is clip.patcher:
        return clip
    twin = clip.clone()
    # The host's own non-dynamic clone of a CLIP would keep the dynamic module.
    twin.patcher, twin.cond_stage_model = patcher, patcher.model
    return twin


def check_same(connected: str, twin: str, socket: str) -> None:
    """Compare the content hashes of a model and of its :func:`plain` twin.

    Raises:
        UnsupportedModelError: the file has changed since it was loaded, or a node has changed the weights themselves.
    """
    if connected != twin:
        raise UnsupportedModelError(
            f"ComfyUI keeps the weights of the {socket} where gradients cannot reach them (dynamic VRAM), and loaded "
            "again they are not those that are connected: the file has changed since, or a node has changed the "
            "weights without saying so. Load the file again (restart ComfyUI), or start it with --disable-dynamic-vram."
        )


def give_back(patcher) -> None:
    """Have the host forget a twin that :func:`plain` made; its memory is free once the caller has let it go too."""
    import comfy.model_management as management

    for loaded in list(management.current_loaded_models):
        if loaded.model is patcher:
            management.current_loaded_models.remove(loaded)
            loaded.model_unload(unpatch_weights=False)  # what is thrown away need not be moved first


@contextmanager
def lasting_casts() -> Iterator[None]:
    """While open, a weight that the host casts for one layer gets memory of its own, and lasts until the backward pass.

    Where memory is short the host brings the weights of plain models to the card layer by layer too, and since late
    2025 on streams of their own, which do not wait for a backward pass, and in part through buffers that the next layer
    uses again.
    """
    import comfy.model_management as management

    streams = getattr(management, "NUM_STREAMS", None)
    if streams is None:
        yield
        return
    management.NUM_STREAMS = 0
    try:
        yield
    finally:
        management.NUM_STREAMS = streams


def own_weights(patcher, module: nn.Module, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """The weights of the module at ``path``, the same whether ``patcher`` is dynamic or not.

    They come without the patches that the host writes into them while they are loaded, for it keeps the originals
    aside, and in the precision that the model has, for a dynamic patcher leaves them in the file's.
    """
    prefix = f"{path}." if path else ""
    aside = {**getattr(patcher, "backup", {}), **getattr(patcher, "backup_buffers", {})}
    for name, tensor in module.state_dict().items():
        kept = aside.get(prefix + name)
        tensor = tensor if kept is None else getattr(kept, "weight", kept)
        owner, _, leaf = name.rpartition(".")
        dtype = getattr(module.get_submodule(owner), leaf + _MODEL_DTYPE, None)
        yield name, tensor.to(dtype) if dtype is not None and _is_ordinary(tensor) else tensor


def _is_dynamic(patcher) -> bool:
    asked = getattr(patcher, "is_dynamic", None)
    return asked is not None and bool(asked())


def _is_ordinary(tensor) -> bool:
    """Whether a precision is all there is to its numbers; the host's quantized tensors are of classes of their own."""
    return type(tensor) in (Tensor, nn.Parameter)


def _cast_to_model_dtypes(model: nn.Module) -> None:
    """Give every weight the model's precision.

    Where dynamic VRAM is on, the host's linear layers take over the file's, even in a model that is not dynamic.
    """
    for module in model.modules():
        for name, parameter in module._parameters.items():
            dtype = getattr(module, name + _MODEL_DTYPE, None)
            if dtype is not None and parameter is not None and parameter.dtype != dtype and _is_ordinary(parameter):
                module._parameters[name] = nn.Parameter(parameter.detach().to(dtype), requires_grad=False)
