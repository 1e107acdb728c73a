"""Pipelines of diffusers with random weights at Stable Diffusion's true sizes, and reduced ones of the same widths."""
from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch

VOCABULARY = 49408


@dataclass(frozen=True)
class Shape:
    """What a family's models are made of.

    Attributes:
        widths: channels of the UNet's levels; all but ``plain`` ones have ``depth`` transformer blocks after each residual block.
        heads: heads of each level (diffusers calls it ``attention_head_dim``).
        encoders: width, layers, heads and activation of each text encoder.
    """

    family: str
    encoders: tuple[tuple[int, int, int, str], ...]
    heads: int | tuple[int, ...]
    pixels: int
    widths: tuple[int, ...] = (320, 640, 1280, 1280)
    residual: int = 2
    depth: int | tuple[int, ...] = 1
    plain: frozenset[int] = frozenset({3})
    linear: bool = False

    def half(self) -> "Shape":
        """The first two levels with one residual block each, where most of the time goes, at the true widths."""
        pick = lambda values: values if isinstance(values, int) else values[:2]  # noqa: E731
        return replace(self, widths=self.widths[:2], residual=1, heads=pick(self.heads), depth=pick(self.depth), plain=self.plain & {0})


CLIP_L, VIT_H, VIT_G = (768, 12, 12, "quick_gelu"), (1024, 23, 16, "gelu"), (1280, 32, 20, "gelu")
SHAPES = {
    "sd15": Shape("sd1", (CLIP_L,), 8, 512),
    "sd21": Shape("sd2", (VIT_H,), (5, 10, 20, 20), 512, linear=True),
    "sdxl": Shape("sdxl", (CLIP_L, VIT_G), (5, 10, 20), 1024, widths=(320, 640, 1280), depth=(1, 2, 10), plain=frozenset({0}), linear=True),
}
SHAPES.update({f"{name}-half": shape.half() for name, shape in tuple(SHAPES.items())})


def pipeline(shape: Shape, device: torch.device, dtype: torch.dtype):
    """A pipeline on ``device``; UNet and autoencoder in ``dtype``, text encoders in float32, as the released script has them."""
    from diffusers import (
        AutoencoderKL,
        DDPMScheduler,
        StableDiffusionPipeline,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from tiny_pipelines import tiny_tokenizer

    with tempfile.TemporaryDirectory(prefix="idea-benchmark-") as folder:
        tokenizer = tiny_tokenizer(Path(folder), VOCABULARY)
    levels, sdxl = len(shape.widths), shape.family == "sdxl"
    kinds = ["" if level in shape.plain else "CrossAttn" for level in range(levels)]
    with torch.device("meta"):  # diffusers' own initialisation takes longer than all that is measured
        unet = UNet2DConditionModel(
            sample_size=shape.pixels // 8, block_out_channels=shape.widths, layers_per_block=shape.residual, attention_head_dim=shape.heads,
            down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds), up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
            cross_attention_dim=sum(width for width, *_ in shape.encoders), transformer_layers_per_block=shape.depth,
            use_linear_projection=shape.linear,
            **(dict(addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816) if sdxl else {}),
        )
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )
    encoders = []
    for number, (width, layers, heads, activation) in enumerate(shape.encoders):
        config = CLIPTextConfig(
            vocab_size=VOCABULARY, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=heads,
            hidden_act=activation, projection_dim=width, bos_token_id=VOCABULARY - 2, eos_token_id=VOCABULARY - 1, pad_token_id=VOCABULARY - 1,
        )
        encoders.append((CLIPTextModelWithProjection if number else CLIPTextModel)(config).train(False).to(device))
    unet, vae = (_filled(model, device, dtype) for model in (unet, vae))
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1)
    parts = dict(vae=vae, text_encoder=encoders[0], tokenizer=tokenizer, unet=unet, scheduler=scheduler)
    if sdxl:
        return StableDiffusionXLPipeline(text_encoder_2=encoders[1], tokenizer_2=tokenizer, **parts)
    return StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def _filled(model: torch.nn.Module, device: torch.device, dtype: torch.dtype) -> torch.nn.Module:
    """The model with random weights that keep activations near unit variance."""
    model = model if dtype == torch.float32 else model.to(dtype)
    model = model.to_empty(device=device).train(False)
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim <= 1:
            parameter.data.fill_(1.0 if name.endswith("weight") else 0.0)
        else:
            parameter.data.normal_(generator=generator).mul_(parameter[0].numel() ** -0.5)
    return model
