"""Gradients through models that the host keeps as inference tensors, without a copy and without a trace."""
from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator, Sequence

import torch
from torch import Tensor, nn


@contextmanager
def borrowed(*roots: nn.Module) -> Iterator[None]:
    """While open, every parameter and buffer below ``roots`` is an ordinary frozen tensor on the same memory.

    Weights loaded in inference mode cannot take part in a backward pass. An alias of their storage can; the very same objects are put
    back afterwards, whatever happened.
    """
    saved: list[tuple[dict, str, Tensor]] = []
    try:
        for root in roots:
            for module in root.modules():
                for table in (module._parameters, module._buffers):
                    for name, tensor in table.items():
                        if tensor is None or not (tensor.is_inference() or tensor.requires_grad):
                            continue
                        saved.append((table, name, tensor))
                        alias = _alias(tensor)
                        table[name] = nn.Parameter(alias, requires_grad=False) if table is module._parameters else alias
        yield
    finally:
        for table, name, tensor in saved:
            table[name] = tensor


def _alias(tensor: Tensor) -> Tensor:
    if not tensor.is_inference():
        return tensor.detach()
    empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return empty.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())


@contextmanager
def checkpointed(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """While open, the transformer blocks recompute their activations in the backward pass."""
    from torch.utils.checkpoint import checkpoint

    def wrapped(forward):
        def run(*args, **kwargs):
            # The host writes the block's number into these options; the recomputation must see what the first pass saw.
            kwargs["transformer_options"] = dict(kwargs.get("transformer_options", {}))
            return checkpoint(forward, *args, use_reentrant=False, **kwargs)

        return run

    try:
        for block in blocks:
            block.forward = wrapped(block.forward)
        yield
    finally:
        for block in blocks:
            block.__dict__.pop("forward", None)


def mutates_saved_tensors(block: nn.Module, context_width: int, options: dict) -> bool:
    """Whether this host's transformer blocks add in place to tensors that the backward pass needs; found out by trying one."""
    weight = block.attn2.to_k.weight
    dtype = weight.dtype if weight.dtype in (torch.float16, torch.bfloat16, torch.float32) else torch.float32
    inner = block.norm2.normalized_shape[0]
    x = torch.zeros(1, 2, inner, device=weight.device, dtype=dtype, requires_grad=True)
    context = torch.zeros(1, 2, context_width, device=weight.device, dtype=dtype, requires_grad=True)
    options = {**options, "block": next(iter(options["patches_replace"]["attn2"]))[:2], "block_index": 0}
    try:
        block(x * 1.0, context=context, transformer_options=options).sum().backward()
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
        return True
    return False
