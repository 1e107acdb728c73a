"""Probes that ask a host for the names in docs/hosts.md."""
import importlib
import inspect
import re
import sys

import torch


def absent(probe):
    """Return those of `names` that this host does not have. Inputs: a MODEL, b CLIP, c VAE of a checkpoint."""
    with torch.inference_mode():
        objects = _objects(probe.a, probe.b, probe.c)
    return {"absent": [name for name in probe.arguments["names"] if not _has(objects, name)]}


def _objects(model, clip, vae):
    """What a name begins with → the object that has the rest: keys of dicts are those that a patch was really given."""
    import comfy.clip_vision
    import comfy.model_management
    import comfy.supported_models
    import comfy.utils

    base, inner = model.model, clip.tokenizer.clip_l
    encoder = clip.cond_stage_model.clip_l
    text = encoder.transformer.text_model
    spatial = next(module for module in base.modules() if type(module).__name__ == "SpatialTransformer")
    block = spatial.transformer_blocks[0]
    server = sys.modules["server"].PromptServer.instance
    objects = {
        "CLIP": clip, "SD1ClipModel": clip.cond_stage_model, "SDClipModel": encoder,
        "CLIPTextModel": encoder.transformer, "CLIPTextModel_": text, "CLIPEmbeddings": text.embeddings,
        "CLIPEncoder": text.encoder, "CLIPLayer": text.encoder.layers[0], "SD1Tokenizer": clip.tokenizer,
        "SDTokenizer": inner, "CLIPTokenizer": inner.tokenizer, "ModelPatcher": model,
        "model_options": model.model_options, "BaseModel": base, "UNetModel": base.diffusion_model,
        "SpatialTransformer": spatial, "BasicTransformerBlock": block, "CrossAttention": block.attn2,
        "ModelSampling": base.model_sampling, "LatentFormat": base.latent_format, "VAE": vae,
        "LoadedModel": comfy.model_management.LoadedModel(model), "PromptServer": server,
        "PromptQueue": server.prompt_queue,
        "SD15": comfy.supported_models.SD15, "ClipVisionModel": comfy.clip_vision.ClipVisionModel,
        "ProgressBar": comfy.utils.ProgressBar,
        "Latent2RGBPreviewer": _first("latent_preview", "comfy.cmd.latent_preview").Latent2RGBPreviewer,
    }
    asked = getattr(sys.modules.get("comfy_execution.utils"), "get_executing_context", None)
    return {**objects, "ExecutionContext": asked() if asked is not None else None, **_given(model, clip)}


def _given(model, clip):
    """What the host hands to a patch, and where it looks for patches: those that it calls, it has found."""
    import comfy.sample
    import comfy.samplers

    called, seen = set(), {}

    def patch(n, context, value, extra):
        called.add(("patches", "attn2_patch"))
        seen.update(extra)
        return n, context, value

    def output(n, extra):
        called.add(("patches", "attn2_output_patch"))
        return n

    def replacing(kind):
        def replace(q, k, v, extra):
            called.add(("patches_replace", kind))
            heads = extra["n_heads"]
            q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
            return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

        return replace

    watched = model.clone()
    options = watched.model_options["transformer_options"]
    keys = [(stage, index) for stage in ("input", "middle", "output") for index in range(12)]
    options["patches"] = {"attn2_patch": [patch], "attn2_output_patch": [output]}
    options["patches_replace"] = {kind: {key: replacing(kind) for key in keys} for kind in ("attn1", "attn2")}
    context, pooled = clip.encode_from_tokens(clip.tokenize("a cat"), return_pooled=True)
    latent = torch.zeros(1, 4, 8, 8)
    conditioning = [[context, {"pooled_output": pooled}]]
    noise, euler = comfy.sample.prepare_noise(latent, 0), comfy.samplers.sampler_object("euler")
    sigmas = torch.tensor([1.0, 0.0])
    comfy.sample.sample_custom(
        watched, noise, 1.0, euler, sigmas, conditioning, conditioning, latent, disable_pbar=True, seed=0
    )
    read = {}
    for group, kind in called:
        read.setdefault(group, {})[kind] = True
    own = importlib.import_module("nodes").CLIPTextEncode().encode(clip, "a cat")[0][0][1]
    return {"extra": seen, "transformer_options": {**seen, **read}, "conditioning": own}


def _has(objects, name) -> bool:
    parameter = re.search(r"\((\w+)\)$", name)
    path = re.findall(r"\w+", name[: parameter.start()] if parameter else name)
    if name == "Module._v":
        return _source_says("comfy.ops", "_v")
    if name == "Module._comfy_model_dtype":
        return _source_says("comfy.ops", "_comfy_model_dtype")
    try:
        value = objects[path[0]] if path[0] in objects else None
        rest = path[1:]
        if path[0] not in objects:
            value, rest = _module(path)
        for part in rest:
            value = value[part] if isinstance(value, dict) else getattr(value, part)
    except (AttributeError, KeyError, ImportError):
        return False
    return parameter is None or parameter[1] in inspect.signature(value).parameters


def _module(path):
    """The longest part of a dotted path that is a module, and what is left of it."""
    for length in range(len(path) - 1, 0, -1):
        name = ".".join(path[:length])
        if name in sys.modules:
            return sys.modules[name], path[length:]
        try:
            return importlib.import_module(name), path[length:]
        except ImportError:
            continue
    raise ImportError(".".join(path))


def _source_says(module, word) -> bool:
    """For what only modules have whose weights are hidden, which no host does on the CPU by itself."""
    return re.search(rf"{word}\b", inspect.getsource(importlib.import_module(module))) is not None


def _first(*names):
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ImportError(" or ".join(names))
