"""A node pack that plays ComfyUI's dynamic VRAM on the CPU.

The host's own patchers and layers run, only its library comfy-aimdo is a stand-in. The card is `cpu:0`, PyTorch's
second name of the CPU: to the host another device than `cpu`, to tensors the same memory. `play` switches it on for the
models that are loaded from then on, `stop` off. The environment variable `IDEA_DYNAMIC_VRAM` plays from the start; it
holds what `play` takes, as JSON.
"""
import ctypes
import json
import mmap
import os

import torch

CARD = torch.device("cpu", 0)
MODES = {
    "resident": "there is room: a weight stays on the card after its first use",
    "evicted": "there is none: a weight lies in a buffer that the next layer overwrites",
}
NODE_CLASS_MAPPINGS = {}
_replaced = []


def is_possible() -> bool:
    """Whether this host has dynamic patchers at all."""
    import comfy.model_patcher

    return hasattr(comfy.model_patcher, "ModelPatcherDynamic")


def play(mode: str, dynamic: bool = True, half: bool = False, short: bool = False) -> None:
    """Let the host load models for the card.

    Args:
        dynamic: False gives the models of a host that was started with --disable-dynamic-vram, on the same card.
        half: the card computes in bfloat16, whatever stands in the file.
        short: models that are not dynamic are brought to the card layer by layer too, as with --lowvram.
    """
    import comfy.cli_args
    import comfy.memory_management as memory
    import comfy.model_management as management
    import comfy.model_patcher as patchers
    import comfy.ops as ops
    import comfy_aimdo.host_buffer
    import comfy_aimdo.model_mmap
    import comfy_aimdo.model_vbar as pages
    import comfy_aimdo.torch
    import comfy_aimdo.vram_buffer

    stop()
    buffer, stream = _Buffer(), _Stream()
    cast, stream_of, is_cpu = ops.cast_bias_weight, management.get_offload_stream, management.is_device_cpu
    evicted, load = mode == "evicted", patchers.ModelPatcher.load

    def cast_bias_weight(layer, input=None, dtype=None, device=None, bias_dtype=None, **more):
        # Inputs say that they are on the CPU, where the host would take another path.
        elsewhere = hasattr(layer, "_v") or hasattr(layer, "prev_comfy_cast_weights")
        return cast(layer, input, dtype, CARD if elsewhere else device, bias_dtype, **more)

    def load_nothing(patcher, device_to=None, lowvram_model_memory=0, force_patch_weights=False, full_load=False):
        return load(patcher, device_to, 1, force_patch_weights, False)

    def stream_for(device):
        return stream if evicted and device == CARD and management.NUM_STREAMS else stream_of(device)

    for module, name, stand_in in (
        (management, "is_device_cpu", lambda device: device != CARD and is_cpu(device)),
        (management, "get_torch_device", lambda: CARD),
        (management, "cpu_mode", lambda: False),
        (management, "should_use_fp16", lambda *asked, **more: False),
        (management, "should_use_bf16", lambda *asked, **more: half),
        (management, "text_encoder_device", lambda: CARD),
        (management, "NUM_STREAMS", 2),
        (management, "get_offload_stream", stream_for),
        (management, "get_aimdo_cast_buffer", lambda stream, device: buffer),
        (memory, "aimdo_enabled", dynamic),
        (patchers.ModelPatcher, "load", load_nothing if short else load),
        (patchers, "CoreModelPatcher", patchers.ModelPatcherDynamic if dynamic else patchers.ModelPatcher),
        (ops, "cast_bias_weight", cast_bias_weight),
        (comfy.cli_args.args, "disable_pinned_memory", True),
        (comfy.cli_args.args, "cuda_malloc", False),  # with it, plain models do not share buffers
        (comfy_aimdo.host_buffer, "HostBuffer", _HostBuffer),
        (comfy_aimdo.model_mmap, "ModelMMAP", _MappedFile),
        (comfy_aimdo.torch, "aimdo_to_tensor", _tensor),
        (comfy_aimdo.vram_buffer, "VRAMBuffer", _Buffer),
        (pages, "ModelVBAR", _Pages),
        (pages, "vbar_fault", lambda page: None if evicted else page[0].signature),
        (pages, "vbar_signature_compare", lambda one, other: one is not None and one is other),
        (pages, "vbar_unpin", lambda page: None),
        (pages, "vbars_analyze", lambda device=None: 0),
        (pages, "vbars_reset_watermark_limits", lambda: None),
    ):
        _replaced.append((module, name, getattr(module, name)))
        setattr(module, name, stand_in)


def stop() -> None:
    """Put everything back; models that were loaded meanwhile must not be used any more."""
    while _replaced:
        module, name, original = _replaced.pop()
        setattr(module, name, original)


class _Pages:
    """`ModelVBAR`: the weights of one model on the card. An allocation is (owner, address, size)."""

    def __init__(self, size, device):
        self.signature, self._blocks = object(), []

    def alloc(self, size):
        block = (ctypes.c_uint8 * size)()
        self._blocks.append(block)
        return self, ctypes.addressof(block), size

    def prioritize(self):
        pass

    def loaded_size(self):
        return sum(map(len, self._blocks))

    def free_memory(self, size):
        return 0


class _Buffer:
    """`VRAMBuffer`: one piece of memory, handed out from the same address again and again."""

    def __init__(self, size=0, device=0):
        self._memory = (ctypes.c_uint8 * (256 << 20))()

    def size(self):
        return len(self._memory)

    def get(self, size, offset=0):
        return self, ctypes.addressof(self._memory) + offset, size


class _HostBuffer:
    """`HostBuffer`: pinned memory, of which none is used."""

    def __init__(self, size, prewarm=0, max_grow_size=0, mark_cold=True):
        self.size = 0

    def truncate(self, size, do_unregister=True):
        self.size = size


class _MappedFile:
    """`ModelMMAP`: a file in memory, and a handle to read it with."""

    def __init__(self, path):
        self._file = open(path, "rb")
        self._bytes = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY)

    def get(self):
        return ctypes.addressof(ctypes.c_uint8.from_buffer(self._bytes))

    def get_file_handle(self):
        return self._file

    def bounce(self):
        return True


class _Stream:
    """A stream in which copies happen at once."""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def wait_stream(self, other):
        pass

    def synchronize(self):
        pass


def _tensor(allocation, device):
    """`aimdo_to_tensor`: the memory of an allocation as bytes, without a history shared with others on that memory."""
    owner, address, size = allocation
    return torch.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype=torch.uint8)


if (_asked := os.environ.get("IDEA_DYNAMIC_VRAM")) and is_possible():
    play(**json.loads(_asked))
