"""Probes that look into FaceCLIP inside the host."""
import torch


def picture(probe):
    """arguments: count, seed, height, width → an IMAGE of noise."""
    arguments = probe.arguments
    size = (arguments.get("count", 1), arguments.get("height", 112), arguments.get("width", 112), 3)
    return {"outputs": (torch.rand(size, generator=torch.Generator().manual_seed(arguments.get("seed", 0))),)}


def conditioning(probe):
    """What a CONDITIONING holds: shapes, sizes, and a few numbers."""
    (rows, options), = probe.a
    return {"shape": list(rows.shape), "pooled": list(options["pooled_output"].shape), "dtype": str(rows.dtype), "device": str(rows.device),
            "options": {key: value for key, value in options.items() if isinstance(value, int)}, "finite": bool(rows.isfinite().all())}


def difference(probe):
    """The largest difference between the rows of two CONDITIONINGs; arguments: row of each, all when absent."""
    a, b = (cond[0][0] if row is None else cond[0][0][row:row + 1]
            for cond, row in ((probe.a, probe.arguments.get("a")), (probe.b, probe.arguments.get("b"))))
    return float((a - b).abs().max())


def latent_difference(probe):
    """The largest difference between two LATENTs; arguments: row of each."""
    a, b = probe.a["samples"], probe.b["samples"]
    return float((a[probe.arguments["a"]] - b[probe.arguments["b"]]).abs().max())


def engine(probe):
    """The engine's own answer for the IMAGE b with the encoder a; arguments: prompt."""
    fused, pooled = probe.a.encoder.encode(probe.b.permute(0, 3, 1, 2), [probe.arguments["prompt"]])
    return {"outputs": ([[fused, {"pooled_output": pooled}]],)}


def management(probe):
    """Is the encoder a among what the host has loaded, and on which device; after the host let go of everything, too."""
    import comfy.model_management as host

    held = lambda: any(loaded.model is probe.a.patcher for loaded in host.current_loaded_models)
    before = held()
    host.unload_all_models()
    return {"before": before, "after": held(), "offloaded": str(probe.a.encoder.parts[0].ln_final.weight.device),
            "offload_device": str(host.text_encoder_offload_device()), "dtype": str(probe.a.encoder.parts[0].ln_final.weight.dtype)}


def said(probe):
    """arguments: value → the value on output 0, as a node gives it whose output is connected to a dropdown."""
    return {"outputs": (probe.arguments["value"],)}


def loading(probe):
    """How the encoder a is loaded by a host that moves only modules without submodules, as hosts do when memory is short.

    The other device is 'meta': it is there on every machine, and a tensor is on it or is not.
    """
    import functools
    import inspect

    import comfy.model_management as host
    import comfy.model_patcher

    encoder = probe.module("idea_engine.faceclip.load").encoder_from_state_dict(probe.a.encoder.state_dict(), configs=probe.a.encoder.configs)
    patcher = comfy.model_patcher.ModelPatcher(encoder, load_device=torch.device("meta"), offload_device=torch.device("cpu"))
    tensors = lambda: [*encoder.parameters(), *encoder.buffers()]
    asked, left, real = [], [], host.load_models_gpu

    @functools.wraps(real)  # also its signature
    def partly(models, **options):
        asked.append(options)
        for model in models:
            for module in model.model.modules():
                if not list(module.children()):
                    module.to(model.load_device)
        left.append(sum(value.device.type == "cpu" for value in tensors()))

    host.load_models_gpu = partly
    try:
        probe.module("nodes.host.faceclip").load_wholly(patcher)
    finally:
        host.load_models_gpu = real
    return {"asked": asked, "left": left, "devices": sorted({str(value.device) for value in tensors()}),
            "knows": "force_full_load" in inspect.signature(real).parameters}


def counted(probe):
    """How often the network runs while the same content is asked for twice, and other content once; arguments: prompt."""
    runs = []
    handle = probe.a.encoder.parts[0].register_forward_hook(lambda *ignored: runs.append(1))
    try:
        faces = probe.b.permute(0, 3, 1, 2)
        counts = []
        for pixels in (faces, faces.clone(), 1 - faces):
            probe.a.encode(pixels, probe.arguments["prompt"])
            counts.append(len(runs))
    finally:
        handle.remove()
    return counts


def weights(probe):
    """The host's reading of prompt weights beside ours; arguments: prompts."""
    from comfy.sd1_clip import escape_important, token_weights, unescape_important

    ours = probe.module("idea_engine.prompts.weights").weighted_parts
    found = []
    for prompt in probe.arguments["prompts"]:
        theirs = [[unescape_important(text), weight] for text, weight in token_weights(escape_important(prompt), 1.0) if text]
        found.append({"theirs": theirs, "ours": [list(part) for part in ours(prompt)]})
    return found


def unet(probe):
    """The MODEL a, loaded by the host, against diffusers' own UNet with the same file; arguments: file."""
    import comfy.model_management as host
    from diffusers import UNet2DConditionModel

    state = torch.load(probe.arguments["file"], weights_only=True)
    config = probe.arguments["config"]
    with torch.device("meta"):
        theirs = UNet2DConditionModel(**config)
    theirs.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
    theirs = theirs.train(False)
    generator = torch.Generator().manual_seed(0)
    noisy, rows, pooled = (torch.randn(shape, generator=generator) for shape in ((1, 4, 8, 8), (1, 77, 2048), (1, 1280)))
    sizes = torch.tensor([[1152.0, 864, 0, 0, 1152, 864]])
    with torch.no_grad():
        expected = theirs(noisy, torch.tensor([500]), rows, added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes}).sample
        del theirs
        host.load_models_gpu([probe.a])
        model = probe.a.model
        vector = model.encode_adm(pooled_output=pooled, width=864, height=1152, crop_w=0, crop_h=0, target_width=864, target_height=1152)
        dtype = getattr(model, "manual_cast_dtype", None) or model.get_dtype()
        found = model.diffusion_model(noisy.to(dtype), torch.tensor([500]).to(dtype), context=rows.to(dtype), y=vector.to(dtype)).float()
    return {"kind": type(model).__name__, "difference": float((found - expected).norm() / expected.norm()), "size": float(expected.norm())}
