"""The Portrait World as a diffusers StableDiffusionPipeline."""
from __future__ import annotations

import torch
from torch import Tensor

from . import assets, tokenizer
from .cache import cache_folder
from .networks.autoencoder import SD_SCALE
from .networks.text_encoder import CONFIG


def load_pipeline(dtype: torch.dtype = torch.float32):
    """A StableDiffusionPipeline with the shipped weights; 128×128 is its native size (the default it takes)."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTokenizer

    vocabulary, merges = tokenizer.write_files(cache_folder() / "clip_tokenizer")
    words = CLIPTokenizer(str(vocabulary), str(merges), model_max_length=tokenizer.LENGTH, pad_token="<|endoftext|>")
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1, prediction_type="epsilon",
    )
    pipe = StableDiffusionPipeline(
        vae=portrait_vae(), text_encoder=text_encoder(), tokenizer=words, unet=unet(), scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )
    return pipe if dtype == torch.float32 else pipe.to(dtype)


def text_encoder():
    """The text encoder as transformers' CLIPTextModel."""
    from transformers import CLIPTextConfig, CLIPTextModel

    model = CLIPTextModel(CLIPTextConfig(**CONFIG))
    model.load_state_dict(assets.text_encoder_state(), strict=False)  # its position ids are a buffer of its own
    return model.train(False).requires_grad_(False)


def unet():
    """The denoiser as diffusers' UNet2DConditionModel."""
    from .networks.denoiser import build

    model = build()
    model.load_state_dict(assets.denoiser_state())
    return model.train(False).requires_grad_(False)


def portrait_vae():
    """The autoencoder as diffusers expects a VAE: encode → latent_dist, decode → sample, scaling_factor 0.18215."""
    from diffusers.configuration_utils import ConfigMixin, register_to_config
    from diffusers.models.autoencoders.vae import DecoderOutput
    from diffusers.models.modeling_outputs import AutoencoderKLOutput
    from diffusers.models.modeling_utils import ModelMixin

    class Exact:
        """A distribution without spread: this autoencoder is deterministic."""

        def __init__(self, latents: Tensor):
            self.mean = latents

        def sample(self, generator=None) -> Tensor:
            return self.mean

        def mode(self) -> Tensor:
            return self.mean

    class PortraitVAE(ModelMixin, ConfigMixin):
        @register_to_config
        def __init__(self, latent_channels: int = 4, scaling_factor: float = SD_SCALE, block_out_channels=(1, 1, 1, 1), sample_size: int = 128):
            super().__init__()
            from .networks.autoencoder import Autoencoder

            self.inner = Autoencoder()

        def encode(self, pixels: Tensor, return_dict: bool = True):
            dist = Exact(self.inner.encode(pixels))
            return AutoencoderKLOutput(latent_dist=dist) if return_dict else (dist,)

        def decode(self, latents: Tensor, return_dict: bool = True, generator=None):
            pixels = self.inner.decode(latents)
            return DecoderOutput(sample=pixels) if return_dict else (pixels,)

    vae = PortraitVAE()
    vae.inner.load_state_dict(assets.state("autoencoder"))
    return vae.train(False).requires_grad_(False)
