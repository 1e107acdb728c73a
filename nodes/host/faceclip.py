"""A FaceCLIP encoder under the host's model management: loaded like a text encoder, offloaded like one, asked once per content."""
from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from ...idea_engine.errors import FaceCLIPFileError, FaceCLIPInputError
from ...idea_engine.faceclip.checkpoint import LICENCE, read
from ...idea_engine.faceclip.config import ENCODERS, from_json
from ...idea_engine.faceclip.encoder import FaceCLIPEncoder
from ...idea_engine.faceclip.load import encoder_from_state_dict
from ...idea_engine.files.fingerprint import content_key
from ...portrait_world import assets, faceclip as portrait_world
from . import paths

DEMO = paths.DEMO  # the tiny encoder that ships with the pack
PRECISIONS = ("auto", "bf16", "fp16", "fp32")
_KEPT = 32  # encodings per encoder, about 0.6 MB each for SDXL

_loaded: WeakValueDictionary = WeakValueDictionary()  # (file as it was, precision) → HostFaceCLIP, while anybody holds it


class HostFaceCLIP:
    """What the IDEA_FACECLIP socket carries.

    Attributes:
        encoder: the engine's FaceCLIPEncoder. licence: of its weights, in words.
        patcher: the host's handle; the host moves the encoder between devices through it.
    """

    def __init__(self, encoder: FaceCLIPEncoder, licence: str):
        import comfy.model_management as management
        import comfy.model_patcher

        self.encoder, self.licence = encoder, licence
        self.patcher = comfy.model_patcher.ModelPatcher(
            encoder, load_device=management.text_encoder_device(), offload_device=management.text_encoder_offload_device()
        )
        self._kept: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()

    def encode(self, faces: Tensor | None, prompt: str, blend: list[float] | None = None) -> tuple[Tensor, Tensor]:
        """See ``FaceCLIPEncoder.encode``; the same content is answered from memory.

        Returns:
            (B, 77 · chunks, d) and (B, d_last), float32 on the CPU.

        Raises:
            FaceCLIPInputError: the numbers overflow in the chosen precision.
        """
        key = content_key(prompt, blend, faces)
        if key not in self._kept:
            load_wholly(self.patcher)
            with torch.no_grad():
                made = tuple(part.cpu() for part in self.encoder.encode(faces, prompt, blend))
            if not all(part.isfinite().all() for part in made):
                raise FaceCLIPInputError(
                    "FaceCLIP's answer is not finite, which would become a black picture: the numbers are too large for the precision. "
                    "Choose bf16 or fp32 as precision in Load FaceCLIP; if it is fp32 already, the file is damaged."
                )
            self._kept[key] = made
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def load_wholly(patcher) -> None:
    """Have the host load a model whose layers are PyTorch's own, with nothing left behind.

    Where memory is short the host moves a part of a model and lets its own layers fetch the rest when they are called; ours cannot.
    """
    import inspect

    import comfy.model_management as management

    whole = {"force_full_load": True} if "force_full_load" in inspect.signature(management.load_models_gpu).parameters else {}
    management.load_models_gpu([patcher], **whole)
    if any(part.device != patcher.load_device for part in (*patcher.model.parameters(), *patcher.model.buffers())):
        patcher.model.to(patcher.load_device)  # what the host passes over, such as parameters beside submodules


def files() -> list[str]:
    """For the dropdown: what is in every faceclip folder, then the one that ships with the pack."""
    return [*paths.faceclip_files(), DEMO]


def state(name: str) -> str:
    """Changes when the file behind ``name`` does: its size and time, for it has gigabytes and this is asked at every queue.

    Raises:
        FaceCLIPFileError: there is no such file.
    """
    path = _path(name)
    return content_key(str(path), path.stat().st_size, path.stat().st_mtime_ns)


def load(name: str, precision: str) -> HostFaceCLIP:
    """The encoder behind a name of :func:`files`.

    Raises:
        FaceCLIPFileError: there is no such file, or it is no FaceCLIP encoder, or only one of the two that SDXL reads.
    """
    key = (state(name), precision)
    held = _loaded.get(key)
    if held is None:
        if name == DEMO:
            tensors, configs, licence = portrait_world.tensors(), from_json(portrait_world.description()), assets.LICENCE
        else:
            (tensors, configs), licence = read(_path(name)), LICENCE
        encoder = encoder_from_state_dict(tensors, dtype=_dtype(precision), configs=configs)
        if name != DEMO and set(encoder.configs) != set(ENCODERS):
            raise FaceCLIPFileError(
                f"{name} holds only {' and '.join(encoder.configs)}, but SDXL reads {' and '.join(ENCODERS)} side by side. Choose the whole "
                "face_clip_encoder.pt of ByteDance/FaceCLIP in Load FaceCLIP."
            )
        held = _loaded[key] = HostFaceCLIP(encoder, licence)
    return held


def _path(name: str) -> Path:
    if name != DEMO:
        return paths.faceclip_path(name)
    path = assets.FOLDER / f"{portrait_world.ASSET}.safetensors"
    if not path.is_file():
        raise FaceCLIPFileError(f"{path.name} is missing from the pack: install the pack again, or choose another file in Load FaceCLIP.")
    return path


def _dtype(precision: str) -> torch.dtype:
    import comfy.model_management as management

    if precision != "auto":
        return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    device = management.text_encoder_device()
    if management.is_device_cpu(device):  # halves are slow there, and rounding is all they would add
        return torch.float32
    for dtype, asked in ((torch.bfloat16, "should_use_bf16"), (torch.float16, "should_use_fp16")):
        if getattr(management, asked)(device):
            return dtype
    return torch.float32
