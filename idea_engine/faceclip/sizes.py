"""How large the encoders of a checkpoint are, read from the shapes of its tensors."""
from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Mapping

from torch import Tensor

from ..errors import FaceCLIPFileError
from .config import ENCODERS, PUBLISHED, FaceCLIPConfig, check_sizes

_WIDTH_OF_A_HEAD = 64  # of every published CLIP text tower
_TABLE, _PLACES = "token_embedding.weight", "face_encoder.pos_embed"


def name_of_one(tensors: Mapping[str, Tensor]) -> str | None:
    """The encoder that keys without any encoder's name belong to: the published one of that width, else the smaller; None = named keys."""
    if _TABLE not in tensors or _PLACES not in tensors:
        return None
    return next((key for key, config in PUBLISHED.items() if tensors[_TABLE].shape[-1:] == (config.text_width,)), ENCODERS[0])


def sizes_of(tensors: Mapping[str, Tensor]) -> dict[str, FaceCLIPConfig]:
    """The encoders that are there, and their sizes as their shapes tell.

    An encoder of a published width is the published one, so that whatever it lacks is noticed. What shapes cannot tell (the activation,
    the padding, the number of heads) is as published: 64 channels a head in the text tower, 8 heads elsewhere. A reduced encoder with
    others needs a description.

    Args:
        tensors: under our names.

    Raises:
        FaceCLIPFileError: the widths cannot be divided into heads.
    """
    return {key: _size_of(key, {name[len(key) + 1:]: tuple(value.shape) for name, value in tensors.items() if name.startswith(f"{key}.")})
            for key in ENCODERS if any(name.startswith(f"{key}.") for name in tensors)}


def _size_of(key: str, shapes: Mapping[str, tuple[int, ...]]) -> FaceCLIPConfig:
    published = PUBLISHED[key]
    table = shapes.get(_TABLE, ())
    if len(table) != 2 or table[1] == published.text_width:
        return published

    def size(name: str, axis: int, otherwise: int) -> int:
        shape = shapes.get(name, ())
        return shape[axis] if len(shape) > axis else otherwise

    def layers(place: str, otherwise: int) -> int:
        found = [int(match[1]) for name in shapes if (match := re.match(rf"{re.escape(place)}\.(\d{{1,3}})\.", name))]
        return 1 + max(found) if found else otherwise

    vocabulary, width = table
    patch = max(1, size("face_encoder.patch_embed.proj.weight", 2, published.patch))
    grid = math.isqrt(size(_PLACES, 1, published.grid ** 2))
    looks = size("fuser.encoder.layers.0.self_attn.attention_weights.weight", 0, published.points * published.fuser_heads)
    found = replace(
        published, vocabulary=vocabulary, length=size("positional_embedding", 0, published.length),
        text_width=width, text_heads=max(1, width // _WIDTH_OF_A_HEAD),
        text_layers=layers("transformer.resblocks", published.text_layers),
        text_inner=size("transformer.resblocks.0.mlp.c_fc.weight", 0, published.text_inner),
        patch=patch, face_side=published.face_side if published.face_side // patch == grid else patch * grid,
        face_width=size(_PLACES, 2, published.face_width), face_layers=layers("face_encoder.blocks", published.face_layers),
        face_inner=size("face_encoder.blocks.0.mlp.fc1.weight", 0, published.face_inner),
        face_classes=size("proj1.weight", 1, published.face_classes), fuser_layers=layers("fuser.encoder.layers", published.fuser_layers),
        fuser_inner=size("fuser.encoder.layers.0.linear1.weight", 0, published.fuser_inner), points=max(1, looks // published.fuser_heads),
    )
    if min(width, found.face_width, found.fuser_heads) < 1:
        raise FaceCLIPFileError(f"{key} has {width} channels, and its face tower {found.face_width}. Take a file that was converted from the published one.")
    divided = ((width, found.text_heads), (width, found.fuser_heads), (found.face_width, found.face_heads))
    if any(whole == 0 or whole % heads for whole, heads in divided):
        raise FaceCLIPFileError(
            f"{key} has {width} channels, and its face tower {found.face_width}. Shapes do not tell how many attention heads they make, and the "
            f"usual numbers ({found.text_heads}, {found.fuser_heads} and {found.face_heads}) do not divide them: give the sizes in configs."
        )
    check_sizes({key: found})
    return found
