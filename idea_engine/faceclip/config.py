"""The sizes of a FaceCLIP encoder: the two that are published, and any smaller one a file describes."""
from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Mapping

from ..errors import FaceCLIPFileError
from ..files.foreign_text import parsed_json, shown

ENCODERS = ("face_clip_l", "face_clip_g")  # the keys of the published checkpoint, in the order in which the outputs are joined
CONFIG_KEY = "idea.faceclip"  # in a safetensors header: JSON, encoder key → fields that differ from the published ones


@dataclass(frozen=True)
class FaceCLIPConfig:
    """One joint encoder.

    Attributes:
        text_width, text_layers, text_heads, text_inner: the CLIP text tower; ``text_width`` is also the width of the fused rows.
        activation: of the text tower, ``quick_gelu`` or ``gelu``.
        vocabulary, length: rows of the token table and positions of a prompt.
        pad: the token after the end of a prompt. open_clip pads with 0, and every one of the 77 rows is read by the fuser.
        face_side, patch: pixels of the square face and of one patch; a remainder (112 = 12 · 9 + 4) is cut off.
        face_width, face_layers, face_heads, face_inner: the face tower.
        face_classes: width of the face's class token.
        fuser_layers, fuser_heads, fuser_inner, points: the fuser; text layers use half of heads and inner width.
        block_mask: words see only words in the fuser's text layers. The published code builds that mask and does not use it.
        prefix: put before a prompt that comes with a face; ``id`` in it becomes the face.
    """

    text_width: int
    text_layers: int
    text_heads: int
    text_inner: int
    activation: str = "gelu"
    vocabulary: int = 49408
    length: int = 77
    pad: int = 0
    face_side: int = 112
    patch: int = 9
    face_width: int = 768
    face_layers: int = 24
    face_heads: int = 8
    face_inner: int = 3072
    face_classes: int = 512
    fuser_layers: int = 6
    fuser_heads: int = 8
    fuser_inner: int = 2048
    points: int = 4
    block_mask: bool = False
    prefix: str = "Photo of a id person."

    @property
    def grid(self) -> int:
        """Patches along one side of the face."""
        return self.face_side // self.patch


L14 = FaceCLIPConfig(text_width=768, text_layers=12, text_heads=12, text_inner=3072, activation="quick_gelu")
BIGG14 = FaceCLIPConfig(text_width=1280, text_layers=32, text_heads=20, text_inner=5120)
PUBLISHED = {"face_clip_l": L14, "face_clip_g": BIGG14}


# What the layers of any encoder can be made of, several times as large as the published ones: a file says how large it is, and is not believed blindly.
_LIMITS = {
    "text_width": (1, 8192), "text_layers": (1, 128), "text_heads": (1, 128), "text_inner": (1, 32768), "vocabulary": (1, 1 << 20), "length": (1, 1024),
    "pad": (0, 1 << 20), "face_side": (1, 1024), "patch": (1, 1024), "face_width": (1, 8192), "face_layers": (1, 128), "face_heads": (1, 128),
    "face_inner": (1, 32768), "face_classes": (1, 8192), "fuser_layers": (1, 128), "fuser_heads": (1, 128), "fuser_inner": (1, 32768), "points": (1, 64),
}


def check_sizes(configs: Mapping[str, FaceCLIPConfig]) -> None:
    """Raises: FaceCLIPFileError: an encoder that cannot be, such as one without layers, of a million layers, or of heads that do not divide its width."""
    for key, config in configs.items():
        for name, (least, most) in _LIMITS.items():
            if not least <= getattr(config, name) <= most:
                raise FaceCLIPFileError(f"{key} has the {name} {shown(getattr(config, name), 30)}, expected {least} to {most}. {_AGAIN}")
        divided = (("text_width", config.text_heads), ("text_width", config.fuser_heads), ("face_width", config.face_heads))
        for name, heads in divided:
            if getattr(config, name) % heads:
                raise FaceCLIPFileError(f"{key} has the {name} {getattr(config, name)}, which {heads} attention heads do not divide. {_AGAIN}")
        if config.patch > config.face_side or config.grid > 128 or config.activation not in ("gelu", "quick_gelu") or len(config.prefix) > 1000:
            raise FaceCLIPFileError(
                f"{key} has patches of {config.patch} in a face of {config.face_side} pixels, the activation {shown(config.activation, 30)} and a prefix of "
                f"{len(config.prefix)} characters; no encoder is so. {_AGAIN}"
            )


_AGAIN = "Convert the published checkpoint again, or download it anew."


def to_json(configs: dict[str, FaceCLIPConfig]) -> str:
    """For a file's header."""
    return json.dumps({key: asdict(config) for key, config in configs.items()})


def from_json(text: str) -> dict[str, FaceCLIPConfig]:
    """Read a file's header.

    Raises:
        FaceCLIPFileError: it is not what :func:`to_json` writes, or describes an encoder far larger than any that exists.
    """
    kinds = {field.name: field.type for field in fields(FaceCLIPConfig)}
    try:
        configs = {}
        for key, values in parsed_json(text).items():
            if key not in ENCODERS or any(type(value).__name__ != kinds[name] for name, value in values.items()):
                raise ValueError(f"{shown(key, 40)} is not described by whole numbers")
            configs[key] = FaceCLIPConfig(**values)
        check_sizes(configs)
        return {key: configs[key] for key in ENCODERS if key in configs}  # the order in which outputs are joined
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FaceCLIPFileError(
            f"The description of the encoder in the file cannot be read ({shown(error)}). {_AGAIN}"
        ) from error
