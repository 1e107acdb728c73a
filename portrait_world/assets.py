"""The shipped files: written by the training, read by everything else. fp16 on disk, float32 in memory.

What a file is stands in its keys; safetensors and ONNX only.
"""
from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parent / "assets"
FACE_PACK = FOLDER / "face_pack"
DETECTION_SIZE = 320  # its faces fill the picture; its detector was measured at this size, see docs/portrait_world.md
LICENCE = "Apache-2.0 (Portrait World of ID-EA)"
_IDS = "used_ids"


def save(name: str, tensors: dict[str, Tensor], **metadata: str) -> Path:
    """Write ``assets/<name>.safetensors``: floating tensors as float16, the rest as they are."""
    from safetensors.torch import save_file

    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.safetensors"
    stored = {key: (value.half() if value.is_floating_point() else value).detach().contiguous().clone() for key, value in tensors.items()}
    save_file(stored, path, metadata={"licence": LICENCE, **metadata})
    path.chmod(0o644)  # safetensors makes files that only their owner may read
    return path


def state(name: str) -> dict[str, Tensor]:
    """The tensors of ``assets/<name>.safetensors``, floating ones as float32.

    Raises:
        FileNotFoundError: the asset was never trained.
    """
    from safetensors.torch import load_file

    path = FOLDER / f"{name}.safetensors"
    if not path.exists():
        raise FileNotFoundError(f"{path.name} is missing: reinstall the pack, or train it with 'python -m portrait_world.train'.")
    return {key: value.float() if value.is_floating_point() else value for key, value in load_file(path).items()}


def _module(made: nn.Module, name: str) -> nn.Module:
    made.load_state_dict(state(name))
    return made.train(False).requires_grad_(False)


@lru_cache(maxsize=1)
def autoencoder():
    """The trained Autoencoder, shared, in eval mode without gradients."""
    from .networks.autoencoder import Autoencoder

    return _module(Autoencoder(), "autoencoder")


@lru_cache(maxsize=1)
def judge():
    """The trained Judge."""
    from .networks.recognizer import Judge

    return _module(Judge(), "judge")


@lru_cache(maxsize=1)
def attribute_judge():
    """The trained AttributeJudge."""
    from .networks.recognizer import AttributeJudge

    return _module(AttributeJudge(), "attributes")


def text_encoder_state() -> dict[str, Tensor]:
    """The text encoder with its table grown to CLIP's 49,408 rows, in transformers' key names."""
    from .networks.text_encoder import expanded_state_dict

    compact = state("text_encoder")
    return expanded_state_dict(compact, compact.pop(_IDS).tolist())


def save_text_encoder(encoder: nn.Module) -> Path:
    """Write the text encoder with the vocabulary ids of its rows beside it."""
    from .networks.text_encoder import used_ids

    return save("text_encoder", {**encoder.state_dict(), _IDS: torch.tensor(used_ids(), dtype=torch.int32)})


def denoiser_state() -> dict[str, Tensor]:
    """The UNet in diffusers' key names."""
    return state("denoiser")
