"""Gradients through a frozen network with less kept for the backward pass, at next to no cost in time.

PyTorch keeps the input of every convolution, normalisation and activation. In a network that does not learn, a convolution's input is of no
use: the gradient that passes through needs the weights alone. What an activation needs is made again from what is kept anyway. Nothing here
computes a convolution, a projection or an attention twice, and every layer's gradient is bit for bit the same.
"""
from __future__ import annotations

from contextlib import contextmanager
from typing import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import gelu

_PLAIN = (torch.float32, torch.float16, torch.bfloat16)
# ComfyUI's: patches applied at use, those of dynamic models, and a weight that is kept elsewhere
_BESIDE = ("weight_function", "weight_lowvram_function", "_v")
_SOURCE = "_idea_source"  # on a normalisation's output: what it was made from, and how to make it again


@contextmanager
def lean(network: nn.Module) -> Iterator[None]:
    """While open, the layers of a frozen ``network`` keep less; layers that somebody else has changed stay as they are.

    The layers run their own forward pass, whatever it is (hosts cast weights there), on the same tensors. Understood are diffusers' UNet and the
    original code's, which hosts use.
    """
    changed: list[nn.Module] = []
    try:
        for module in network.modules():
            wrap = _wrapper(module)
            if wrap is not None and "forward" not in module.__dict__:
                module.forward = wrap(module, module.forward)
                changed.append(module)
        yield
    finally:
        for module in changed:
            del module.__dict__["forward"]


def _wrapper(module: nn.Module) -> Callable | None:
    if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros" and not isinstance(module.padding, str):
        return _convolution
    if isinstance(module, nn.GroupNorm):
        return _normalisation
    if isinstance(module, nn.SiLU) and not module.inplace:
        return _activation
    # Both spell the gated linear unit the same: one projection, x · gelu(gate).
    if type(module).__name__ == "GEGLU" and isinstance(getattr(module, "proj", None), nn.Linear):
        return _gated
    return None


def _convolution(module: nn.Conv2d, forward: Callable) -> Callable:
    def run(x: Tensor, *args, **kwargs) -> Tensor:
        if args or kwargs or not _passes(x) or not _understood(module):
            return forward(x, *args, **kwargs)
        return _Convolution.apply(x, module, forward)

    return run


def _normalisation(module: nn.GroupNorm, forward: Callable) -> Callable:
    def run(x: Tensor) -> Tensor:
        out = forward(x)
        if _passes(x):
            setattr(out, _SOURCE, (x, x._version, out._version, forward))
        return out

    return run


def _activation(module: nn.SiLU, forward: Callable) -> Callable:
    def run(x: Tensor) -> Tensor:
        if not _passes(x) or x.ndim != 4:  # the embedding of the timestep is too small to matter
            return forward(x)
        source, version, own, remake = getattr(x, _SOURCE, (x, 0, 0, None))
        if remake is not None and (source._version, x._version) != (version, own):  # one of them is no longer what it was
            source, remake = x, None
        return _Again.apply(x, source.detach(), remake, forward)

    return run


def _gated(module: nn.Module, forward: Callable) -> Callable:
    def run(x: Tensor, *args, **kwargs) -> Tensor:
        if args or kwargs or not _passes(x):
            return forward(x, *args, **kwargs)
        both = module.proj(x)
        return _Again.apply(both, both.detach(), None, _gate)

    return run


def _gate(both: Tensor) -> Tensor:
    x, gate = both.chunk(2, dim=-1)
    return x * gelu(gate)


def _passes(x: Tensor) -> bool:
    return torch.is_grad_enabled() and x.requires_grad


def _understood(module: nn.Conv2d) -> bool:
    """Whether the layer computes with ``weight`` as it stands there, at most in another precision.

    Hosts may have patches, or the true weight, beside it.
    """
    weight = module.weight
    beside = any(getattr(module, name, None) for name in _BESIDE)
    return not weight.requires_grad and weight.dtype in _PLAIN and not beside


class _Convolution(torch.autograd.Function):
    """A frozen convolution, which keeps nothing."""

    @staticmethod
    def forward(ctx, x: Tensor, module: nn.Conv2d, forward: Callable) -> Tensor:
        ctx.module, ctx.shape = module, x.shape
        return forward(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        m = ctx.module
        weight = m.weight.to(gradient)
        return torch.nn.grad.conv2d_input(ctx.shape, weight, gradient, m.stride, m.padding, m.dilation, m.groups), None, None


class _Again(torch.autograd.Function):
    """A cheap function that is computed again in the backward pass, from its argument or from what its argument is ``remade`` of."""

    @staticmethod
    def forward(ctx, x: Tensor, source: Tensor, remake: Callable | None, function: Callable) -> Tensor:
        ctx.save_for_backward(source)
        ctx.remake, ctx.function = remake, function
        return function(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        (x,) = ctx.saved_tensors
        if ctx.remake is not None:
            x = ctx.remake(x)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (own,) = torch.autograd.grad(ctx.function(x), x, gradient)
        return own, None, None, None
