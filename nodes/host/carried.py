"""A text condition that takes along where its people stand.

Between a text node and the sampler other nodes average, weigh, concatenate, repeat and cut conditionings, and afterwards nothing in the numbers tells
who stood where. So the encoder returns a tensor that carries layers of its own shape: where each person stands, with which weight, and what the
prompt reads without them. Whatever is done to the condition is done to its layers, so they stay true. What cannot be followed gives an ordinary
tensor, and the person is then recognised by their rows, see :mod:`.mentions`.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Callable, Iterator, Mapping

import torch
from torch import Tensor

NOBODY: frozenset[str] = frozenset()
_SETS = 32  # combinations of absent people that are followed; four people who come and go one by one stay below

_MOVES = frozenset(  # the same for every layer: what changes neither numbers nor their place in a row
    "__getitem__ view view_as reshape flatten unflatten repeat repeat_interleave expand expand_as unsqueeze squeeze transpose permute swapaxes "
    "to cpu cuda float half bfloat16 double type contiguous clone detach chunk split tensor_split unbind narrow select index_select roll flip pad "
    "neg negative empty_like zeros_like nan_to_num pin_memory".split()
)
_JOINS = frozenset("cat concat concatenate stack hstack vstack dstack where".split())
_SUMS = frozenset("add add_ sub sub_ subtract rsub __radd__ __rsub__ __iadd__ __isub__ __add__ __sub__ lerp lerp_ copy_ __setitem__".split())
_PRODUCTS = frozenset("mul mul_ multiply div div_ divide true_divide __mul__ __rmul__ __imul__ __truediv__ __itruediv__ __rtruediv__".split())
_REDUCTIONS = frozenset("mean sum std var norm linalg_norm vector_norm linalg_vector_norm max amax min amin".split())
_FOLLOWED = _MOVES | _JOINS | _SUMS | _PRODUCTS | _REDUCTIONS


@dataclass(frozen=True)
class Without:
    """Layer: the condition as it reads with the mentions ``absent`` as plain words."""

    absent: frozenset[str]


@dataclass(frozen=True)
class Staged:
    """Layer: the condition as keys (``part`` 0) or values (1) read it in one stage of the sampling; true where the person stands."""

    mention: str
    stage: int
    part: int
    absent: frozenset[str] = NOBODY


@dataclass(frozen=True)
class Standing:
    """Layer: the weight with which pseudo-token ``token`` of a mention stands at a position, 0 where it does not; the same in every feature."""

    mention: str
    token: int
    absent: frozenset[str] = NOBODY


@dataclass(frozen=True)
class Ending:
    """Layer: the weight with which the positions from the end mark on belong to a mention, 0 elsewhere."""

    mention: str
    absent: frozenset[str] = NOBODY


Layer = Without | Staged | Standing | Ending


class CarriedCondition(Tensor):
    """Attributes: layers: tensors of the condition's own shape. factor: it is a number that was taken from a condition, such as its mean.
    unfinished: it is one encoder's part; called with the whole once the parts are joined."""

    layers: dict[Layer, Tensor]
    factor: bool
    unfinished: Callable[["CarriedCondition"], Tensor] | None

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        with torch._C.DisableTorchFunctionSubclass():
            if name not in _FOLLOWED:
                return func(*_mapped(args, plain), **_mapped(kwargs, plain))
            own = list(_carried((args, kwargs)))
            if name.startswith("__i") or name == "__setitem__" or (name.endswith("_") and not name.endswith("__")):
                return _written(func, name, args, kwargs, own)
            result = func(*_mapped(args, plain), **_mapped(kwargs, plain))
            try:
                return _followed(func, name, args, kwargs, own, result)
            except (RuntimeError, TypeError, IndexError, ValueError):  # an argument that fits the condition and not its layers
                return result

    def __reduce_ex__(self, protocol):
        return plain(self).__reduce_ex__(protocol)  # files hold the numbers alone

    def absences(self) -> list[frozenset[str]]:
        """The sets of mentions that can be left out, the empty one first."""
        return [NOBODY, *(key.absent for key in self.layers if isinstance(key, Without))]

    def nearest(self, absent: frozenset[str]) -> frozenset[str]:
        """As many of ``absent`` as can be left out together."""
        return max((known for known in self.absences() if known <= absent), key=len)

    def layer(self, key: Layer) -> Tensor:
        """The layer, with as many people left out as were foreseen; a weight that is not carried is 0 everywhere."""
        near = self.nearest(key.absent)
        if near != key.absent:
            key = replace(key, absent=near)
        if key in self.layers:
            return self.layers[key]
        if isinstance(key, (Standing, Ending)):
            return torch.zeros_like(plain(self))
        return plain(self) if isinstance(key, Without) or not near else self.layers[Without(near)]

    def mentions(self) -> set[str]:
        """Everybody who stands in the condition, or did before somebody weighed them away."""
        return {key.mention for key in self.layers if isinstance(key, Standing)}

    def weights(self, mention: str, count: int, absent: frozenset[str] = NOBODY) -> Tensor:
        """(B, L, n) with which weight each pseudo-token of a mention stands at each position; of two encoders' texts the first that holds it counts."""
        found = []
        for token in range(count):
            layer = self.layer(Standing(mention, token, absent))
            first, last = layer[..., 0], layer[..., -1]
            found.append(torch.where(first != 0, first, last))
        return torch.stack(found, dim=-1)

    def ending(self, mention: str, absent: frozenset[str] = NOBODY) -> Tensor:
        """(B, L, 1): the share of a mention's ending at each position."""
        layer = self.layer(Ending(mention, absent))
        first, last = layer[..., :1], layer[..., -1:]
        return torch.where(first.abs() >= last.abs(), first, last)


def carry(condition: Tensor, layers: Mapping[Layer, Tensor], unfinished=None, factor: bool = False) -> CarriedCondition:
    """``condition`` with layers of its shape."""
    with torch._C.DisableTorchFunctionSubclass():
        made = plain(condition).as_subclass(CarriedCondition)
    made.layers, made.factor, made.unfinished = dict(layers), factor, unfinished
    return made


def plain(value):
    """An ordinary tensor on the same memory; anything else as it is."""
    if not isinstance(value, CarriedCondition):
        return value
    with torch._C.DisableTorchFunctionSubclass():
        return value.as_subclass(Tensor)


def spread(weights: Tensor, width: int) -> Tensor:
    """(B, L) → (B, L, d), the same in every feature, on memory of its own: nodes write into conditions."""
    return weights[..., None].repeat(1, 1, width)


def _carried(value) -> Iterator[CarriedCondition]:
    if isinstance(value, CarriedCondition):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _carried(item)
    elif isinstance(value, dict):
        yield from _carried(list(value.values()))


def _mapped(value, change: Callable[[Tensor], Any]):
    """``value`` with ``change`` of every tensor in it; other arguments stay."""
    if isinstance(value, (list, tuple)):
        items = [_mapped(item, change) for item in value]
        return value.__class__(items) if value.__class__ in (list, tuple) else value
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    return change(value) if isinstance(value, Tensor) else value


def _keys(own: list[CarriedCondition]) -> set[Layer]:
    """The layers of what is made of several conditions: whoever can be left out of one of them can be left out of all together."""
    sets = {NOBODY}
    for one in own:
        sets |= {first | second for first in sets for second in one.absences()}
        if len(sets) > _SETS:
            sets = {NOBODY, *(known for other in own for known in other.absences())}
            break
    every = {key for one in own for key in one.layers}
    return {Without(absent) for absent in sets if absent} | {
        replace(key, absent=absent) for key in every if not isinstance(key, Without) for absent in sets
        if getattr(key, "mention", None) not in absent
    }


def _followed(func, name: str, args, kwargs, own: list[CarriedCondition], result):
    whole = isinstance(result, Tensor)
    parts = [result] if whole else list(result) if isinstance(result, (list, tuple)) else []
    if not parts or not all(isinstance(part, Tensor) and part.is_floating_point() for part in parts):
        return result
    factor = all(one.factor for one in own)
    # A number taken from the condition (its mean, its norm) weighs where a person stands, but does not stand there itself.
    taken = name in _REDUCTIONS and not (whole and result.ndim >= 2 and result.shape[-1:] == own[0].shape[-1:])
    layers = {}
    for key in _keys(own):
        if isinstance(key, (Standing, Ending)):
            if not (taken or factor):
                layers[key] = _of_a_weight(func, name, args, kwargs, key)
        else:
            layers[key] = func(*_mapped(args, _of(key)), **_mapped(kwargs, _of(key)))
    unfinished = next((one.unfinished for one in own if one.unfinished is not None), None)
    if not whole:
        return type(result)([carry(part, {key: made[i] for key, made in layers.items()}, unfinished) for i, part in enumerate(parts)])
    made = carry(result, layers, unfinished, factor or taken)
    return unfinished(made) if unfinished is not None and name in _JOINS else made


def _written(func, name: str, args, kwargs, own: list[CarriedCondition]):
    """An operation that writes into its first argument; an ordinary tensor that is written into stays one."""
    target = args[0]
    if isinstance(target, CarriedCondition):
        target.layers.update({key: target.layer(key).clone() for key in _keys(own) - target.layers.keys()})
        for key in list(target.layers):
            if isinstance(key, (Standing, Ending)):
                _of_a_weight(func, name, args, kwargs, key)
            else:
                func(*_mapped(args, _of(key)), **_mapped(kwargs, _of(key)))
    result = func(*_mapped(args, plain), **_mapped(kwargs, plain))
    return result if name == "__setitem__" else target


def _of(key: Layer) -> Callable[[Tensor], Tensor]:
    return lambda value: value.layer(key) if isinstance(value, CarriedCondition) else value


def _of_a_weight(func, name: str, args, kwargs, key: Layer):
    """What an operation does to a layer of weights: sums leave it alone, products weigh it, and it is 0 in what does not carry it."""
    additive = name in _SUMS or name in _JOINS

    def pick(value: Tensor) -> Tensor:
        if isinstance(value, CarriedCondition) and not value.factor:
            return value.layer(key)
        value = plain(value)
        # The choice of `where` and an index stay what they are.
        return torch.zeros_like(value) if additive and value.is_floating_point() else value

    picked = _mapped(args, pick)
    if name in ("lerp", "lerp_"):
        picked = (*picked[:2], plain(args[2])) if len(args) > 2 else picked
    elif name in _SUMS and name not in ("__setitem__", "copy_"):
        picked = tuple(0 if isinstance(value, (int, float)) else value for value in picked)
    return func(*picked, **_mapped(kwargs, plain if name.startswith("lerp") else pick))
