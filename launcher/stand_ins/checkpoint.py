"""Writes small checkpoints with random weights that a host's own CheckpointLoaderSimple loads.

They exercise everything a real checkpoint does, in a second instead of a minute, and make noise-like pictures. The format is
each family's original one; what is reduced is the number of UNet blocks and the autoencoder (the shape of TAESD). The text encoders
have their full size, because the hosts read that from their own configuration: sd15 takes 303 MB, sd21 0.8 GB, sdxl 1.9 GB.

Needs torch and safetensors, so run it inside the environment: `python -m launcher.stand_ins.checkpoint FILE [--family sd15]`.
"""
import argparse
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

CHANNELS = 320  # `model_channels` of every SD1, SD2 and SDXL UNet; the hosts tell families apart by it
TIME = 4 * CHANNELS
VOCABULARY, POSITIONS = 49408, 77


@dataclass(frozen=True)
class Family:
    """What the hosts look at to tell a model family."""

    context: int  # width of the text condition
    linear: bool  # transformer projections are linear layers, not 1×1 convolutions
    depths: tuple[tuple[int, ...], ...]  # transformer blocks per residual block, one tuple per resolution
    pooled: int = 0  # width of the vector condition, 0 for none
    v_prediction: bool = False


FAMILIES = {
    "sd15": Family(768, False, ((1,),)),
    "sd21": Family(1024, True, ((1,),)),
    "sd21-v": Family(1024, True, ((1,),), v_prediction=True),
    "sdxl": Family(2048, True, ((0, 0), (1, 1), (2, 2)), pooled=2816),  # the depths of Segmind-Vega, the smallest SDXL hosts know
}


def make_demo_checkpoint(path: Path, family: str = "sd15", seed: int = 0) -> Path:
    """Write a checkpoint of `family` (a key of FAMILIES) and return its path; the same seed gives the same file."""
    import torch
    from safetensors.torch import save_file

    weights = Weights(torch.Generator().manual_seed(seed))
    shape = FAMILIES[family]
    _unet(weights.below("model.diffusion_model."), shape)
    _autoencoder(weights.below("first_stage_model."))
    if family == "sd15":
        _clip_l(weights.below("cond_stage_model.transformer.text_model."))
    elif family == "sdxl":
        _clip_l(weights.below("conditioner.embedders.0.transformer.text_model."))
        open_clip(weights.below("conditioner.embedders.1.model."), width=1280, layers=32)
    else:
        open_clip(weights.below("cond_stage_model.model."), width=1024, layers=24)
    if shape.v_prediction:
        # The hosts read 'v prediction' off the spread of this one bias; the reduced UNet has no such block, so they then ignore it.
        weights.tensors["model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"] = torch.linspace(-1, 1, CHANNELS).half()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".partial")
    save_file(weights.tensors, str(part), metadata={"format": "pt", "modelspec.title": f"random demo weights ({family})"})
    os.replace(part, path)
    return path


class Weights:
    """Collects named half-precision tensors; every layer is drawn so that its output is about as large as its input."""

    def __init__(self, generator, prefix: str = "", tensors: dict | None = None):
        self.generator, self.prefix, self.tensors = generator, prefix, {} if tensors is None else tensors

    def below(self, prefix: str) -> "Weights":
        return Weights(self.generator, self.prefix + prefix, self.tensors)

    def normal(self, name: str, *shape: int, std: float):
        import torch
        self.tensors[self.prefix + name] = (torch.randn(shape, generator=self.generator) * std).half()

    def constant(self, name: str, *shape: int, value: float = 0.0):
        import torch
        self.tensors[self.prefix + name] = torch.full(shape, value, dtype=torch.float16)

    def norm(self, name: str, width: int):
        self.constant(f"{name}.weight", width, value=1.0)
        self.constant(f"{name}.bias", width)

    def linear(self, name: str, inward: int, outward: int, bias: bool = True, gain: float = 1.0):
        self.normal(f"{name}.weight", outward, inward, std=gain * inward ** -0.5)
        if bias:
            self.constant(f"{name}.bias", outward)

    def convolution(self, name: str, inward: int, outward: int, size: int = 3, bias: bool = True, gain: float = 1.0):
        self.normal(f"{name}.weight", outward, inward, size, size, std=gain * (inward * size * size) ** -0.5)
        if bias:
            self.constant(f"{name}.bias", outward)


def _unet(w: Weights, family: Family):
    """A UNet in the format of the original code: `input_blocks`, `middle_block`, `output_blocks`."""
    w.linear("time_embed.0", CHANNELS, TIME)
    w.linear("time_embed.2", TIME, TIME)
    if family.pooled:
        w.linear("label_emb.0.0", family.pooled, TIME)
        w.linear("label_emb.0.2", TIME, TIME)
    w.convolution("input_blocks.0.0", 4, CHANNELS)
    block = 1
    for level, depths in enumerate(family.depths):
        if level:
            w.convolution(f"input_blocks.{block}.0.op", CHANNELS, CHANNELS)
            block += 1
        for depth in depths:
            residual(w.below(f"input_blocks.{block}.0."), CHANNELS)
            transformer(w.below(f"input_blocks.{block}.1."), family.context, family.linear, depth)
            block += 1
    residual(w.below("middle_block.0."), CHANNELS)
    transformer(w.below("middle_block.1."), family.context, family.linear, 1)
    residual(w.below("middle_block.2."), CHANNELS)
    block = 0
    for level, depths in reversed(list(enumerate(family.depths))):
        for place, depth in enumerate((*depths, depths[-1])):  # one more than on the way down: it takes the downsampler's output
            residual(w.below(f"output_blocks.{block}.0."), 2 * CHANNELS)
            transformer(w.below(f"output_blocks.{block}.1."), family.context, family.linear, depth)
            if level and place == len(depths):
                w.convolution(f"output_blocks.{block}.{2 if depth else 1}.conv", CHANNELS, CHANNELS)
            block += 1
    w.norm("out.0", CHANNELS)
    w.convolution("out.2", CHANNELS, 4)


def residual(w: Weights, inward: int, width: int = CHANNELS, gain: float = 1.0):
    """A residual block of a UNet; ``gain`` of what it adds."""
    w.norm("in_layers.0", inward)
    w.convolution("in_layers.2", inward, width)
    w.linear("emb_layers.1", TIME, width)
    w.norm("out_layers.0", width)
    w.convolution("out_layers.3", width, width, gain=gain)
    if inward != width:
        w.convolution("skip_connection", inward, width, size=1)


def transformer(w: Weights, context: int, linear: bool, depth: int = 1, width: int = CHANNELS, gain: float = 1.0):
    """A spatial transformer of a UNet, see :class:`Family`; nothing at depth 0."""
    if not depth:
        return
    projection = w.linear if linear else partial(w.convolution, size=1)
    w.norm("norm", width)
    projection("proj_in", width, width)
    projection("proj_out", width, width, gain=gain)
    for layer in range(depth):
        block = w.below(f"transformer_blocks.{layer}.")
        for name, read in (("attn1", width), ("attn2", context)):
            block.linear(f"{name}.to_q", width, width, bias=False)
            block.linear(f"{name}.to_k", read, width, bias=False)
            block.linear(f"{name}.to_v", read, width, bias=False)
            block.linear(f"{name}.to_out.0", width, width)
        block.linear("ff.net.0.proj", width, 8 * width)
        block.linear("ff.net.2", 4 * width, width)
        for name in ("norm1", "norm2", "norm3"):
            block.norm(name, width)


def _autoencoder(w: Weights):
    """The layers of TAESD, numbered as its two `Sequential`s number them."""
    width, relu = 64, 2 ** 0.5

    def residual(name: str):
        for layer in (0, 2, 4):
            w.convolution(f"{name}.conv.{layer}", width, width, gain=relu if layer < 4 else 0.3)

    encoder, decoder = "taesd_encoder", "taesd_decoder"
    w.convolution(f"{encoder}.0", 3, width)
    residual(f"{encoder}.1")
    for down in (2, 6, 10):
        w.convolution(f"{encoder}.{down}", width, width, bias=False)
        for place in (1, 2, 3):
            residual(f"{encoder}.{down + place}")
    w.convolution(f"{encoder}.14", width, 4)
    w.convolution(f"{decoder}.1", 4, width)
    for first in (3, 8, 13):
        for place in (0, 1, 2):
            residual(f"{decoder}.{first + place}")
        w.convolution(f"{decoder}.{first + 4}", width, width, bias=False)
    residual(f"{decoder}.18")
    w.convolution(f"{decoder}.19", width, 3, gain=0.3)
    w.tensors[f"{w.prefix}{decoder}.19.bias"] += 0.5  # its range is 0…1
    w.tensors[f"{w.prefix}vae_scale"] = w.tensors[f"{w.prefix}{decoder}.19.bias"].new_ones(())


def _clip_l(w: Weights):
    """CLIP ViT-L/14's text encoder in the names of transformers. Embeddings spread as the real ones do."""
    width = 768
    w.normal("embeddings.token_embedding.weight", VOCABULARY, width, std=0.014)
    w.normal("embeddings.position_embedding.weight", POSITIONS, width, std=0.005)
    for layer in range(12):
        block = w.below(f"encoder.layers.{layer}.")
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            block.linear(f"self_attn.{name}", width, width)
        block.linear("mlp.fc1", width, 4 * width)
        block.linear("mlp.fc2", 4 * width, width)
        block.norm("layer_norm1", width)
        block.norm("layer_norm2", width)
    w.norm("final_layer_norm", width)


def open_clip(w: Weights, width: int, layers: int):
    """The text encoder of OpenCLIP ViT-H/14 or ViT-bigG/14 in OpenCLIP's names."""
    w.normal("token_embedding.weight", VOCABULARY, width, std=0.014)
    w.normal("positional_embedding", POSITIONS, width, std=0.005)
    for layer in range(layers):
        block = w.below(f"transformer.resblocks.{layer}.")
        block.normal("attn.in_proj_weight", 3 * width, width, std=width ** -0.5)
        block.constant("attn.in_proj_bias", 3 * width)
        block.linear("attn.out_proj", width, width)
        block.linear("mlp.c_fc", width, 4 * width)
        block.linear("mlp.c_proj", 4 * width, width)
        block.norm("ln_1", width)
        block.norm("ln_2", width)
    w.norm("ln_final", width)
    w.normal("text_projection", width, width, std=width ** -0.5)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write a small checkpoint with random weights.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--family", choices=FAMILIES, default="sd15")
    chosen = parser.parse_args()
    make_demo_checkpoint(chosen.file, chosen.family)
