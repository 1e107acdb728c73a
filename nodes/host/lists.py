"""Lists: what a host gives a node with ``INPUT_IS_LIST``, as the values of one person, and what such a node gives as a list."""
from __future__ import annotations

import functools
import inspect
from typing import Callable, Sequence

import torch
from torch import Tensor

from ...idea_engine.errors import ListError


def one_person(node: str, pictures: Sequence[str], lines: Sequence[str] = ()) -> Callable:
    """Decorates the function of a node with ``INPUT_IS_LIST``, to which a host gives every input as a list, so that several photographs of
    one person, whatever their sizes, make one run and not one each.

    Args:
        node: display name, for the sentence.
        pictures: inputs that may be lists: the function gets a list of what came, a batch each, or None where nothing is connected.
        lines: texts that may be lists: the function gets the text, or a tuple of several.

    Raises:
        ListError: several different values came for any other input.
    """

    def decorate(function):
        signature = inspect.signature(function)

        @functools.wraps(function)
        def called(*given, **inputs):
            bound = signature.bind(*given, **inputs)
            for name, value in bound.arguments.items():
                came = value if isinstance(value, list) else [value]
                if name in pictures:
                    bound.arguments[name] = [one for one in came if one is not None] or None
                elif name in lines and len(came) > 1:
                    bound.arguments[name] = tuple(came)
                else:
                    bound.arguments[name] = _single(came, name, node)
            return function(*bound.args, **bound.kwargs)

        return called

    return decorate


def as_lists(pictures: Sequence[Tensor]) -> list[Tensor]:
    """Pictures (H, W, C) or masks (H, W) for an output that is a list: one batch where all have one size, as ever, else a batch for each."""
    first = pictures[0]
    if len(pictures) == 1 or any(picture.shape != first.shape for picture in pictures):
        return [picture[None] for picture in pictures]
    if all(_follows(first, picture, place) for place, picture in enumerate(pictures)):  # rows of a batch already: a photograph may have half a gigabyte
        return [first.as_strided((len(pictures), *first.shape), (first.numel(), *first.stride()))]
    return [torch.stack(list(pictures))]


def _follows(first: Tensor, picture: Tensor, place: int) -> bool:
    """Whether a picture is the ``place``-th of a batch in memory whose first picture is ``first``."""
    same = picture.is_contiguous() and picture.dtype == first.dtype and picture.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
    return same and picture.storage_offset() == first.storage_offset() + place * first.numel()


def _single(values: list, name: str, node: str):
    first = values[0]
    if any(value is not first and not (isinstance(value, (str, int, float)) and value == first) for value in values[1:]):
        raise ListError(
            f"{node} got a list of {len(values)} different values for {name}, expected one: it takes its photographs as a list, for they show one "
            f"person, and everything else once. Connect a single value to {name}, or use one {node} for each."
        )
    return first
