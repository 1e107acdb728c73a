"""FaceCLIP in the Portrait World: a tiny joint encoder of a face and a prompt that the shipped denoiser understands.

The text tower is the world's own frozen text encoder, so only the face tower and the fuser are stored; ``tensors`` puts them together
under the published names, which is what the engine's loader reads.
"""
from __future__ import annotations

import json

import torch
from torch import Tensor

from . import assets, tokenizer
from .networks.text_encoder import HEADS, INNER, LAYERS, WIDTH

ASSET, ENCODER = "faceclip", "face_clip_l"
PREFIX = "Photo of a id person."  # the published one
# what differs from the published encoders; see FaceCLIPConfig
SIZES = dict(
    text_width=WIDTH, text_layers=LAYERS, text_heads=HEADS, text_inner=INNER, activation="quick_gelu", pad=tokenizer.END,
    patch=14, face_width=64, face_layers=4, face_heads=4, face_inner=256, fuser_layers=2, fuser_inner=512,
    prefix=PREFIX,
)
_TEXT_TOWER = ("transformer.", "token_embedding.", "positional_embedding", "ln_final.")


def description() -> str:
    """The sizes as a file's header tells them."""
    return json.dumps({ENCODER: SIZES})


def tensors() -> dict[str, Tensor]:
    """The shipped encoder under the published names.

    Raises:
        FileNotFoundError: it was never trained.
    """
    return {**{f"{ENCODER}.{key}": value for key, value in text_tower().items()}, **assets.state(ASSET)}


def text_tower() -> dict[str, Tensor]:
    """The world's text encoder in CLIP's published names, without a prefix."""
    known = assets.text_encoder_state()
    part = "text_model.embeddings."
    state = {
        "token_embedding.weight": known[f"{part}token_embedding.weight"],
        "positional_embedding": known[f"{part}position_embedding.weight"],
        "ln_final.weight": known["text_model.final_layer_norm.weight"], "ln_final.bias": known["text_model.final_layer_norm.bias"],
    }
    inner = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2", "attn.out_proj": "self_attn.out_proj"}
    for number in range(LAYERS):
        theirs, ours = f"text_model.encoder.layers.{number}.", f"transformer.resblocks.{number}."
        for kind in ("weight", "bias"):
            state |= {f"{ours}{name}.{kind}": known[f"{theirs}{source}.{kind}"] for name, source in inner.items()}
            state[f"{ours}attn.in_proj_{kind}"] = torch.cat([known[f"{theirs}self_attn.{letter}_proj.{kind}"] for letter in "qkv"])
    return state


def is_text_tower(key: str) -> bool:
    """Whether a joint encoder's key belongs to the part that is stored elsewhere."""
    return key.startswith(_TEXT_TOWER)


def load():
    """The shipped encoder as the engine's FaceCLIPEncoder."""
    from idea_engine.faceclip.config import from_json
    from idea_engine.faceclip.load import encoder_from_state_dict

    return encoder_from_state_dict(tensors(), tokenizer.encode, configs=from_json(description()))
