"""The autoencoder: 128×128 pixels ↔ a 4×16×16 latent, small and fast on a CPU.

Not AutoencoderKL's shape: that one spends most of its time on convolutions at full resolution, and ten times the training
would not fit in the three hours this world may take. Strided and pixel-shuffled ends keep full resolution out of the
network. Hosts take it as any VAE whose ``encode`` and ``decode`` are called; diffusers through pipeline.PortraitVAE.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTHS = (40, 80, 144)  # at 1/2, 1/4 and 1/8 of the resolution
LATENT_CHANNELS = 4
FACTOR = 8
SD_SCALE = 0.18215  # SD1.x hosts multiply latents by this before the denoiser sees them


class Block(nn.Module):
    """Two convolutions and a skip."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(_conv(width, width), nn.ReLU(), _conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(x + self.layers(x))


class Autoencoder(nn.Module):
    """Pixels in -1..1 ↔ latents in Stable Diffusion's space (standard deviation about 1 / 0.18215)."""

    def __init__(self):
        super().__init__()
        a, b, c = WIDTHS
        self.encoder = nn.Sequential(
            nn.Conv2d(3, a, 4, 2, 1), nn.ReLU(), Block(a), _conv(a, b, stride=2), nn.ReLU(), Block(b),
            _conv(b, c, stride=2), nn.ReLU(), Block(c), _conv(c, LATENT_CHANNELS),
        )
        self.decoder = nn.Sequential(
            _conv(LATENT_CHANNELS, c), nn.ReLU(), Block(c), Block(c), nn.Upsample(scale_factor=2), _conv(c, b), nn.ReLU(),
            Block(b), Block(b), nn.Upsample(scale_factor=2), _conv(b, a), nn.ReLU(), Block(a), _conv(a, 12), nn.PixelShuffle(2),
        )
        # Measured after training over the training pictures: hosts and the noise schedule expect unit variance.
        self.register_buffer("latent_mean", torch.zeros(LATENT_CHANNELS))
        self.register_buffer("latent_std", torch.ones(LATENT_CHANNELS))

    def compress(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in -1..1 → (B, 4, H/8, W/8) raw latents within ±3."""
        return 3 * torch.tanh(self.encoder(pixels) / 3)

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in -1..1 → (B, 4, H/8, W/8) latents in SD's space: × 0.18215 has unit variance per channel."""
        mean, std = self.latent_mean.view(1, -1, 1, 1), self.latent_std.view(1, -1, 1, 1)
        return (self.compress(pixels) - mean) / (std * SD_SCALE)

    def decode(self, latents: Tensor, **_unused) -> Tensor:
        """(B, 4, h, w) latents in SD's space → (B, 3, 8h, 8w) in about -1..1, not clamped.

        Hosts may pass options meant for other decoders; they are ignored.
        """
        mean, std = self.latent_mean.view(1, -1, 1, 1), self.latent_std.view(1, -1, 1, 1)
        return self.decoder(latents * (std * SD_SCALE) + mean)


def to_tensor(pictures) -> Tensor:
    """(B, H, W, 3) uint8 array → (B, 3, H, W) float32 in -1..1."""
    tensor = torch.as_tensor(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    return tensor.contiguous(memory_format=torch.channels_last)


def to_pictures(pixels: Tensor):
    """(B, 3, H, W) in -1..1 → (B, H, W, 3) uint8 array; values outside are clamped."""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def _conv(n_in: int, n_out: int, **options) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, padding=1, **options)
