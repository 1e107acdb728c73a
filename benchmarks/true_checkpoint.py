"""Writes a checkpoint of Stable Diffusion 2.1's true size with random weights, in its original format: 2.6 GB in half precision.

    python benchmarks/true_checkpoint.py FILE
"""
from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from launcher.stand_ins.checkpoint import TIME, Weights, open_clip, residual, transformer  # noqa: E402

CONTEXT = 1024
WIDTHS = (320, 640, 1280, 1280)  # the last level has no transformers
GAIN = 0.3  # of what a block adds: many of them follow one another here
AUTOENCODER = (128, 256, 512, 512)


def make(path: Path, seed: int = 0) -> Path:
    import torch
    from safetensors.torch import save_file

    weights = Weights(torch.Generator().manual_seed(seed))
    unet(weights.below("model.diffusion_model."))
    autoencoder(weights.below("first_stage_model."))
    open_clip(weights.below("cond_stage_model.model."), width=1024, layers=24)
    partial = path.with_name(path.name + ".partial")
    save_file(weights.tensors, str(partial), metadata={"format": "pt"})
    os.replace(partial, path)
    return path


def unet(w: Weights) -> None:
    w.linear("time_embed.0", WIDTHS[0], TIME)
    w.linear("time_embed.2", TIME, TIME)
    w.convolution("input_blocks.0.0", 4, WIDTHS[0])
    skips, block, inward = [WIDTHS[0]], 1, WIDTHS[0]
    for level, width in enumerate(WIDTHS):
        if level:
            w.convolution(f"input_blocks.{block}.0.op", inward, inward)
            skips.append(inward)
            block += 1
        for _ in range(2):
            stage(w.below(f"input_blocks.{block}."), inward, width, level < 3)
            inward = width
            skips.append(inward)
            block += 1
    residual(w.below("middle_block.0."), inward, inward, GAIN)
    transformer(w.below("middle_block.1."), CONTEXT, True, width=inward, gain=GAIN)
    residual(w.below("middle_block.2."), inward, inward, GAIN)
    block = 0
    for level, width in reversed(list(enumerate(WIDTHS))):
        for place in range(3):
            stage(w.below(f"output_blocks.{block}."), inward + skips.pop(), width, level < 3)
            inward = width
            if level and place == 2:
                w.convolution(f"output_blocks.{block}.{2 if level < 3 else 1}.conv", width, width)
            block += 1
    w.norm("out.0", inward)
    w.convolution("out.2", inward, 4)


def stage(w: Weights, inward: int, width: int, attends: bool) -> None:
    residual(w.below("0."), inward, width, GAIN)
    transformer(w.below("1."), CONTEXT, True, depth=int(attends), width=width, gain=GAIN)


def autoencoder(w: Weights) -> None:
    first, last = AUTOENCODER[0], AUTOENCODER[-1]
    encoder, decoder = w.below("encoder."), w.below("decoder.")
    encoder.convolution("conv_in", 3, first)
    inward = first
    for level, width in enumerate(AUTOENCODER):
        for place in range(2):
            image_residual(encoder.below(f"down.{level}.block.{place}."), inward, width)
            inward = width
        if level < 3:
            encoder.convolution(f"down.{level}.downsample.conv", width, width)
    middle(encoder, last)
    encoder.norm("norm_out", last)
    encoder.convolution("conv_out", last, 8)
    decoder.convolution("conv_in", 4, last)
    middle(decoder, last)
    inward = last
    for level, width in reversed(list(enumerate(AUTOENCODER))):
        for place in range(3):
            image_residual(decoder.below(f"up.{level}.block.{place}."), inward, width)
            inward = width
        if level:
            decoder.convolution(f"up.{level}.upsample.conv", width, width)
    decoder.norm("norm_out", first)
    decoder.convolution("conv_out", first, 3)
    w.convolution("quant_conv", 8, 8, size=1)
    w.convolution("post_quant_conv", 4, 4, size=1)


def middle(w: Weights, width: int) -> None:
    image_residual(w.below("mid.block_1."), width, width)
    w.norm("mid.attn_1.norm", width)
    for name in ("q", "k", "v", "proj_out"):
        w.convolution(f"mid.attn_1.{name}", width, width, size=1)
    image_residual(w.below("mid.block_2."), width, width)


def image_residual(w: Weights, inward: int, width: int) -> None:
    w.norm("norm1", inward)
    w.convolution("conv1", inward, width)
    w.norm("norm2", width)
    w.convolution("conv2", width, width, gain=GAIN)
    if inward != width:
        w.convolution("nin_shortcut", inward, width, size=1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE", help="where to")
    make(parser.parse_args().file)
