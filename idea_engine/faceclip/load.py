"""Tensors of a FaceCLIP checkpoint → an encoder."""
from __future__ import annotations

from typing import Mapping

import torch
from torch import Tensor

from .checkpoint import checked
from .config import FaceCLIPConfig
from .encoder import FaceCLIPEncoder
from .prompt import Words


def encoder_from_state_dict(
    state_dict: Mapping[str, Tensor], words: Words | None = None, dtype: torch.dtype | None = None,
    configs: Mapping[str, FaceCLIPConfig] | None = None,
) -> FaceCLIPEncoder:
    """An encoder around the tensors of a checkpoint, in eval mode, without gradients and without a second copy of them.

    Args:
        state_dict: as published (``model.face_clip_l.…``), without the ``model.``, or one encoder alone, with its name or without.
        words: text → CLIP token ids; None = CLIP's own, which this package ships.
        dtype: what the floating tensors are converted to; None = all to the kind of the first floating one.
        configs: sizes; None = read from the shapes, see ``checkpoint.sizes_of``.

    Raises:
        FaceCLIPFileError: keys are missing or left over, or have another shape; the sentence and its attributes list them.
    """
    tensors, sizes = checked(state_dict, configs)
    with torch.device("meta"):
        made = FaceCLIPEncoder(sizes, words)
    # the counters of the batch norms are whole numbers, and safetensors puts them first
    dtype = dtype or next(value.dtype for value in tensors.values() if value.is_floating_point())
    made.load_state_dict({key: value.to(dtype) if value.is_floating_point() else value for key, value in tensors.items()}, assign=True)
    return made.train(False).requires_grad_(False)
