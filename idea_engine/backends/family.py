"""Model families: what an identity must agree with."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping

import torch
from torch import Tensor

_FAMILIES = {frozenset({"clip_l"}): "sd1", frozenset({"clip_h"}): "sd2", frozenset({"clip_l", "clip_g"}): "sdxl"}
ENCODERS = ("clip_l", "clip_g", "clip_h")


@dataclass(frozen=True)
class ModelFamily:
    """What an identity must agree with: the text encoders and what the denoiser reads and predicts.

    Attributes:
        name: ``sd1``, ``sd2`` or ``sdxl``, as seen from the encoders and the denoiser, never from a file name.
        encoders: encoder key (``clip_l``, ``clip_g``, ``clip_h``) → width w, in the order in which their outputs are joined.
    """

    name: str
    encoders: Mapping[str, int]

    @property
    def context_width(self) -> int:
        """d: the width of the text condition that cross-attention reads."""
        return sum(self.encoders.values())

    def split(self, joined: Tensor) -> dict[str, Tensor]:
        """(…, d) → encoder key → (…, w)."""
        return dict(zip(self.encoders, joined.split(tuple(self.encoders.values()), dim=-1)))

    def join(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Encoder key → (…, w), joined to (…, d)."""
        return torch.cat([parts[key] for key in self.encoders], dim=-1)

    def describe(self) -> str:
        """'SDXL (clip_l 768 + clip_g 1280)', for messages."""
        title = {"sd1": "Stable Diffusion 1.x", "sd2": "Stable Diffusion 2.x", "sdxl": "SDXL"}[self.name]
        return f"{title} ({' + '.join(f'{key} {width}' for key, width in self.encoders.items())})"


def family_of(encoders: Mapping[str, int]) -> ModelFamily | None:
    """The family whose text encoders are exactly these, or None."""
    name = _FAMILIES.get(frozenset(encoders))
    return name and ModelFamily(name, {key: encoders[key] for key in ENCODERS if key in encoders})
