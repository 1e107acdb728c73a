"""What a MODEL and a CLIP are, down to the bit: to show that our nodes left them as they were."""
import hashlib

import torch


def digest(value) -> str:
    """Hash of a nested value's tensors, bit by bit."""
    found = hashlib.sha256()

    def walk(item):
        if torch.is_tensor(item):
            found.update(f"{tuple(item.shape)}{item.dtype}".encode())
            found.update(item.detach().cpu().contiguous().float().numpy().tobytes())
        elif isinstance(item, dict):
            for key in sorted(item, key=str):
                found.update(str(key).encode())
                walk(item[key])
        elif isinstance(item, (list, tuple)):
            for part in item:
                walk(part)
        else:
            found.update(repr(item).encode() if isinstance(item, (int, float, str, type(None))) else type(item).__name__.encode())

    walk(value)
    return found.hexdigest()[:16]


def originals(probe):
    """a: MODEL, b: CLIP → digest of all weights, identities of the parameter objects, patches and options."""
    model, clip = probe.a, probe.b
    modules = (model.model, clip.cond_stage_model)
    objects = [id(p) for module in modules for p in module.parameters()]
    return {
        "weights": [digest(module.state_dict()) for module in modules],
        "objects": hashlib.sha256(repr(objects).encode()).hexdigest(),
        "inference": sorted({p.is_inference() for module in modules for p in module.parameters()}),
        "requires_grad": sorted({p.requires_grad for module in modules for p in module.parameters()}),
        "patches": [len(model.patches), len(clip.patcher.patches)],
        "options": repr(model.model_options),
        "types": [type(clip.tokenizer).__name__, type(clip.cond_stage_model).__name__, *(type(m).__mro__[1].__name__ for m in modules)],
        "forwards": sum("forward" in m.__dict__ for module in modules for m in module.modules()),
    }


def compare(probe):
    """a, b: LATENTs → largest absolute difference."""
    return float((probe.a["samples"] - probe.b["samples"]).abs().max())


def partly_loaded(probe):
    """a: MODEL, b: whatever is to be made before; arguments: share → the same, of whose weights the host holds that share ready and casts the rest
    at every use, as with little VRAM."""
    import comfy.model_management as management

    management.unload_all_models()  # what is loaded already would be taken as it is
    model, size = probe.a.clone(), sum(p.nbytes for p in probe.a.model.parameters())
    budget = max(1, int(size * probe.arguments["share"]))
    kind = type(model)
    if hasattr(model, "patch_model_lowvram"):  # June 2024

        def patch_model(device_to=None, patch_weights=True):
            if patch_weights:
                return kind.patch_model_lowvram(model, device_to, budget)
            return kind.patch_model(model, device_to, patch_weights)

        model.patch_model = patch_model
    else:
        model.load = lambda device_to=None, lowvram_model_memory=0, force_patch_weights=False, full_load=False: kind.load(
            model, device_to, budget, force_patch_weights, False
        )
    return {"outputs": (model,)}


def cast_at_use(probe):
    """a: MODEL, b: whatever it made → how many of its cross-attentions' projections are cast at every use; then everything is unloaded."""
    import comfy.model_management as management

    blocks = probe.module("nodes.host.family").cross_attention_blocks(probe.a.model.diffusion_model)
    counted = sum(getattr(block.attn2, name).comfy_cast_weights for _, block in blocks.values() for name in ("to_q", "to_k", "to_v"))
    management.unload_all_models()
    return counted
