"""LoadDemoModel: the Portrait World, a complete model that ships with the pack."""
from __future__ import annotations

from .sockets import CATEGORY


class LoadDemoModel:
    """A small real model of drawn portraits: nothing to download."""

    DESCRIPTION = (
        "Loads the Portrait World: a small Stable-Diffusion-shaped model of drawn portraits that ships with this pack. It knows 360 people "
        "by name, eight scenes, garments, expressions and styles, and makes 128 × 128 pictures. Every node that takes MODEL, CLIP and VAE works with it."
    )
    CATEGORY = CATEGORY
    FUNCTION = "load"
    RETURN_TYPES = ("MODEL", "CLIP", "VAE", "STRING", "IMAGE")
    RETURN_NAMES = ("model", "clip", "vae", "names", "photo")
    OUTPUT_TOOLTIPS = (
        "The denoiser, for any sampler.", "The text encoder, with CLIP's vocabulary.", "The autoencoder: 8 × smaller latents with 4 channels.",
        "The names the model knows, one per line: connect to names_text of ID Enhancer and choose 'my list' there.",
        "A photograph of somebody the model has never seen, to try the pack with.",
    )

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def load(self):
        from ..portrait_world import comfy_model
        from ..portrait_world.world.people import names
        from .host.paths import example_photograph

        return (comfy_model.load_model(), comfy_model.load_clip(), comfy_model.load_vae(), "\n".join(names()), example_photograph())
