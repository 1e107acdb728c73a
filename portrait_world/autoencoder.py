"""The autoencoder: 128×128 pixels ↔ a 4×16×16 latent.

It has TAESD's published shape on purpose: every ComfyUI loads such a state dict as a VAE by its keys, and diffusers
knows it as AutoencoderTiny. Only the weights are ours. Latents come out with about unit variance per channel, the
space in which the denoiser was trained; ``vae_scale`` maps them to what hosts expect of Stable Diffusion (0.18215).
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

CHANNELS = 64
LATENT_CHANNELS = 4
FACTOR = 8
SD_SCALE = 0.18215  # what SD1.x hosts multiply latents by before the denoiser


class Block(nn.Module):
    """Three convolutions and a skip; key names are TAESD's."""

    def __init__(self, width: int):
        super().__init__()
        layers = [_conv(width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width)]
        self.conv = nn.Sequential(*layers)
        self.fuse = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(self.conv(x) + x)


class Clamp(nn.Module):
    """Soft limit of ±3, so that no latent drives the decoder out of its range."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class Autoencoder(nn.Module):
    """TAESD's layout: pixels in 0..1 inside, unit-variance latents."""

    def __init__(self):
        super().__init__()
        w = CHANNELS
        down = lambda: [_conv(w, w, stride=2, bias=False), Block(w), Block(w), Block(w)]
        up = lambda: [Block(w), Block(w), Block(w), nn.Upsample(scale_factor=2), _conv(w, w, bias=False)]
        self.taesd_encoder = nn.Sequential(_conv(3, w), Block(w), *down(), *down(), *down(), _conv(w, LATENT_CHANNELS))
        self.taesd_decoder = nn.Sequential(
            Clamp(), _conv(LATENT_CHANNELS, w), nn.ReLU(), *up(), *up(), *up(), Block(w), _conv(w, 3)
        )

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in -1..1 → (B, 4, H/8, W/8), about unit variance."""
        return self.taesd_encoder(pixels * 0.5 + 0.5)

    def decode(self, latents: Tensor) -> Tensor:
        """(B, 4, h, w), about unit variance → (B, 3, 8h, 8w) in about -1..1 (not clamped)."""
        return self.taesd_decoder(latents) * 2 - 1


def host_state_dict(model: Autoencoder) -> dict[str, Tensor]:
    """What a ComfyUI recognises as a TAESD VAE: our keys and the two scalars that place its latents in SD's space."""
    return {**model.state_dict(), "vae_scale": torch.tensor(SD_SCALE), "vae_shift": torch.tensor(0.0)}


def diffusers_state_dict(model: Autoencoder) -> dict[str, Tensor]:
    """The same weights under AutoencoderTiny's names (its decoder counts no clamp layer)."""
    renamed = {}
    for key, value in model.state_dict().items():
        part, number, rest = key.split(".", 2)
        side = part.removeprefix("taesd_")
        renamed[f"{side}.layers.{int(number) - (side == 'decoder')}.{rest}"] = value
    return renamed


def to_tensor(pictures) -> Tensor:
    """(B, H, W, 3) uint8 array → (B, 3, H, W) float32 in -1..1."""
    tensor = torch.as_tensor(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    return tensor.contiguous(memory_format=torch.channels_last)


def to_pictures(pixels: Tensor):
    """(B, 3, H, W) in -1..1 → (B, H, W, 3) uint8 array; values outside are clamped."""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def _conv(n_in: int, n_out: int, **options) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, padding=1, **options)
