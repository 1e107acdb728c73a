"""The host's side of the comparison with diffusers: its weights, and its noise prediction with an applied identity."""
from pathlib import Path

import torch


def weights(probe):
    """a, b: MODEL, CLIP; arguments: folder → unet.safetensors and text.safetensors in it, under the host's names."""
    import comfy.model_management as management
    from safetensors.torch import save_file

    management.unload_all_models()  # while a model is loaded, its weights hold the patches of whoever used it last
    folder = Path(probe.arguments["folder"])
    for name, module in (("unet", probe.a.model.diffusion_model), ("text", probe.b.cond_stage_model.clip_l.transformer)):
        save_file({key: tensor.float().clone().contiguous() for key, tensor in module.state_dict().items()}, folder / f"{name}.safetensors")


def prediction(probe):
    """a, b: MODEL, CLIP, as they are or with identities; arguments: text, timestep, latents, file → ε for the prompt, in ``file``.

    latents: a file with ``x0`` and ``noise``.
    """
    import comfy.model_management as management
    from safetensors.torch import load_file, save_file

    given = probe.arguments
    held = load_file(given["latents"])
    management.load_models_gpu([probe.a, probe.b.patcher])
    context = probe.b.encode_from_tokens(probe.b.tokenize(given["text"]))
    base = probe.a.model
    sigma = base.model_sampling.sigma(torch.tensor([given["timestep"]]))
    noisy = held["x0"] + sigma.view(-1, 1, 1, 1) * held["noise"]
    options = {**probe.a.model_options["transformer_options"], "sigmas": sigma}
    denoised = base.apply_model(noisy, sigma, c_crossattn=context, transformer_options=options)
    save_file({"output": ((noisy - denoised) / sigma.view(-1, 1, 1, 1)).float().contiguous(), "context": context.float().contiguous()}, given["file"])


def portrait_world(probe):
    """→ MODEL, CLIP of the Portrait World."""
    world = probe.module("portrait_world.comfy_model")
    return {"outputs": (world.load_model(), world.load_clip())}
