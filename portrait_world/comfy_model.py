"""The Portrait World inside ComfyUI: real MODEL, CLIP and VAE objects from the shipped weights.

The one module of this package that knows a host. Host modules are imported inside the functions, so importing this file
needs no ComfyUI. Works on the June 2024 pip host and on v0.3.41 and later. Like the host's own loaders, each says how
it can be called again: where the host manages memory dynamically it asks for a model that is not (``disable_dynamic``).
"""
from __future__ import annotations

import torch

from . import assets
from .networks.denoiser import HOST_CONFIG, HOST_EXTRA_CONFIG, host_state_dict
from .networks.text_encoder import CONFIG


def load_model(disable_dynamic: bool = False):
    """A ModelPatcher around the host's own UNetModel: what MODEL sockets carry."""
    import comfy.model_management as management
    import comfy.supported_models

    class PortraitWorld(comfy.supported_models.SD15):
        unet_config = dict(HOST_CONFIG)
        unet_extra_config = dict(HOST_EXTRA_CONFIG)

    dtype = torch.float32 if management.cpu_mode() else management.unet_dtype(model_params=4_300_000)
    config = PortraitWorld(dict(HOST_CONFIG, dtype=dtype))
    if hasattr(config, "set_inference_dtype"):  # not in June 2024
        config.set_inference_dtype(dtype, None)
    offload = management.unet_offload_device()
    model = config.get_model({}, "", device=offload)
    patcher = _patcher(disable_dynamic)(model, load_device=management.get_torch_device(), offload_device=offload)
    weights = host_state_dict(assets.denoiser_state())
    prefix = "model.diffusion_model."
    dynamic = getattr(patcher, "is_dynamic", bool)()
    assign = {"assign": True} if dynamic else {}  # a dynamic model keeps the file's own tensors
    model.load_model_weights({prefix + key: value for key, value in weights.items()}, prefix, **assign)
    patcher.cached_patcher_init = (load_model, ())
    return patcher


def load_clip(disable_dynamic: bool = False):
    """The host's CLIP object with its own SD1 tokenizer around our text transformer."""
    import comfy.sd
    import comfy.sd1_clip
    import comfy.supported_models_base
    import folder_paths

    class PortraitClipModel(comfy.sd1_clip.SDClipModel):
        def __init__(self, device="cpu", dtype=None, **options):
            options.pop("textmodel_json_config", None)
            super().__init__(device=device, dtype=dtype, textmodel_json_config=dict(CONFIG), return_projected_pooled=False, **options)

    class PortraitSD1ClipModel(comfy.sd1_clip.SD1ClipModel):
        def __init__(self, device="cpu", dtype=None, **options):
            super().__init__(device=device, dtype=dtype, clip_model=PortraitClipModel, **options)

    class PortraitTokenizer(comfy.sd1_clip.SDTokenizer):
        def __init__(self, embedding_directory=None, **options):
            super().__init__(embedding_directory=embedding_directory, embedding_size=CONFIG["hidden_size"], **options)

    class PortraitSD1Tokenizer(comfy.sd1_clip.SD1Tokenizer):
        def __init__(self, embedding_directory=None, **options):
            super().__init__(embedding_directory=embedding_directory, tokenizer=PortraitTokenizer, **options)

    target = comfy.supported_models_base.ClipTarget(PortraitSD1Tokenizer, PortraitSD1ClipModel)
    with torch.no_grad():  # June 2024 fills a parameter in place while it builds
        asked = {"disable_dynamic": True} if disable_dynamic else {}  # which only hosts ask that know it
        clip = comfy.sd.CLIP(target, embedding_directory=folder_paths.get_folder_paths("embeddings"), **asked)
    clip.load_sd(assets.text_encoder_state())
    clip.patcher.cached_patcher_init = (_clip_patcher, ())
    return clip


def load_vae(disable_dynamic: bool = False):
    """The host's VAE object, ours inside. It is built on a TAESD, so that the host fills every attribute it knows of."""
    import comfy.model_management as management
    import comfy.sd
    import comfy.taesd.taesd

    from .networks.autoencoder import Autoencoder

    vae = comfy.sd.VAE(sd=comfy.taesd.taesd.TAESD().state_dict())
    model = Autoencoder()
    model.load_state_dict(assets.state("autoencoder"))
    model = model.train(False).requires_grad_(False).to(vae.vae_dtype)
    vae.first_stage_model = model
    offload = management.vae_offload_device()
    vae.patcher = _patcher(disable_dynamic)(model, load_device=vae.device, offload_device=offload)
    vae.patcher.cached_patcher_init = (_vae_patcher, ())
    return vae


def _clip_patcher(disable_dynamic: bool = False):
    return load_clip(disable_dynamic).patcher


def _vae_patcher(disable_dynamic: bool = False):
    return load_vae(disable_dynamic).patcher


def _patcher(disable_dynamic: bool):
    """The class of patcher that this host's own loaders use."""
    import comfy.model_patcher

    plain = comfy.model_patcher.ModelPatcher
    return plain if disable_dynamic else getattr(comfy.model_patcher, "CoreModelPatcher", plain)
