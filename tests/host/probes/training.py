"""The host's own models as the engine's training backend, examined from inside the executor."""
from contextlib import nullcontext

import torch

PROMPT = "a photo of {tokens} person wearing an oversized sweater"


def _setup(probe, recipe):
    """a, b, c: MODEL, CLIP, VAE; d: EnhancedIdentity → backend and a training that has not begun."""
    train = probe.module("idea_engine.training.loop")
    backend = probe.module("nodes.host.backend").ComfyBackend(probe.a, probe.b, probe.c)
    chosen = {name: probe.arguments[name] for name in ("seed", "stages", "attention", "lr") if name in probe.arguments}
    config = train.TrainConfig(recipe=recipe, steps=30, batch=probe.arguments.get("batch", 2), resolution=64, templates=(PROMPT,), **chosen)
    photo = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(3))
    photos, mask = probe.module("idea_engine.training.pictures"), torch.zeros(64, 64)
    mask[16:48, 16:48] = 1.0
    pictures, faces = photos.prepare_photos([photo], 64), photos.prepare_masks([mask], [photo], 64)
    build = probe.module("idea_engine.methods").build
    with torch.inference_mode(False):
        return backend, train._Run(backend, probe.d, config.resolved(), config, pictures, build, faces)


def _shake(module):
    """Away from the no-op start, where half of the gradients are zero by construction."""
    generator = torch.Generator().manual_seed(1)

    def noise(parameter):
        return torch.randn(parameter.shape, generator=generator)

    with torch.no_grad():
        module.adapter.gamma.fill_(0.5)
        for parameter in [*module.key_value.offsets(), *module.global_key, *module.global_value]:
            parameter.copy_(noise(parameter) * 0.05)
        for parameter in [*module.tokens.values(), *module.parts().get("stages", [])]:
            parameter.add_(noise(parameter) * 0.1)


def finite_differences(probe):
    """arguments: recipe, stages, attention → part: (slope measured, norm of the gradient, step)."""
    recipe = probe.arguments["recipe"]
    backend, run = _setup(probe, recipe)
    run.learns_from = 0  # finite differences see the whole UNet
    with torch.inference_mode(False):
        _shake(run.module)
        batch = probe.module("idea_engine.training.batch").draw_batch(0, 0, 2, len(run.latents), len(run.config.templates), run.latents.shape[1:], 1000)

        def loss():
            return run.picture_losses(batch, slice(0, 2)).mean() + run.module.regularizer()

        rows = {}
        with backend.training():
            loss().backward()
            for part in sorted(run.recipe.trains):
                parameters = run.module.parts()[part]
                norm = torch.stack([p.grad.norm() for p in parameters]).norm()
                size = min(2e-3 * float(torch.stack([p.detach().norm() for p in parameters]).norm()) + 1e-3, 5e-2)

                def moved(step):
                    with torch.no_grad():
                        for p in parameters:
                            p.add_(p.grad / norm, alpha=step)
                        value = loss().item()
                        for p in parameters:
                            p.add_(p.grad / norm, alpha=-step)
                    return value

                rows[part] = ((moved(size) - moved(-size)) / (2 * size), norm.item(), size)
        return rows


def lean_gradients(probe):
    """arguments: recipe → the largest difference of any gradient to plain autograd's, relative to the gradient, and the bytes either way keeps."""
    host = probe.module("nodes.host.backend")
    backend, run = _setup(probe, probe.arguments["recipe"])

    def gradients():
        kept = {}

        def keep(tensor):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        run.optimizer.zero_grad(set_to_none=True)
        with backend.training():
            # A host that adds in place needs hooks of its own, and these would take their place.
            with nullcontext() if backend._mutates else torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                loss = run.picture_losses(batch, slice(0, 2)).mean()
            loss.backward()
        return [p.grad for part in run.recipe.trains for p in run.module.parts()[part]], sum(kept.values())

    with torch.inference_mode(False):
        _shake(run.module)
        batch = probe.module("idea_engine.training.batch").draw_batch(0, 0, 2, len(run.latents), len(run.config.templates), run.latents.shape[1:], 1000)
        found, kept = gradients()
        lean, host.lean = host.lean, lambda unet: nullcontext()
        try:
            plain, kept_plainly = gradients()
        finally:
            host.lean = lean
    pairs = [(a, b) for a, b in zip(found, plain) if b is not None]
    return {"difference": max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs), "pairs": len(pairs), "kept": kept, "plainly": kept_plainly, "counted": not backend._mutates}


def thirty_steps(probe):
    """arguments: recipe → loss over a third of what the training draws, before and after it, and which parts changed."""
    backend, run = _setup(probe, probe.arguments["recipe"])
    with torch.inference_mode(False):
        before = {part: [p.detach().clone() for p in ps] for part, ps in run.module.parts().items()}
        run.learns_from = 0  # of an untrained UNet, a part of the gradient need not lead downwards
        batches = [run.draw(step) for step in range(0, run.recipe.steps, 3)]

        def fixed():
            with backend.training(), torch.no_grad():
                return torch.stack([run.picture_losses(batch, slice(None)).mean() for batch in batches]).mean().item()

        first = fixed()
        run.execute(lambda event: None, None, 0.0)
        changed = {part: [not torch.equal(a, b) for a, b in zip(before[part], ps)] for part, ps in run.module.parts().items()}
        return {"before": first, "after": fixed(), "changed": {k: [any(v), all(v)] for k, v in changed.items()}, "trains": sorted(run.recipe.trains)}


def used_as_trained(probe):
    """The UNet's answer in training against its answer through the applied nodes, for the same noisy latent and prompt.

    arguments: recipe, timestep → largest difference, and the size of what the identity changes.
    """
    recipe = probe.arguments["recipe"]
    backend, run = _setup(probe, recipe)
    applied_nodes = probe.module("idea_engine.applying.applied")
    with torch.inference_mode(False):
        _shake(run.module)
        identity = run.module.identity("<anna>", {}, "")
        # What is trained is rounded once, to what the file holds; here too, so that only the two ways of computing can differ.
        g = torch.Generator().manual_seed(5)
        noise, t = torch.randn(1, *run.latents.shape[1:], generator=g), torch.tensor([probe.arguments["timestep"]])
        with backend.training(), torch.no_grad():
            prompts = run.prompts
            trained = backend.predict(run.latents[:1], noise, t, *run.module.read(backend, prompts, [0], t)).denoised
    applied = applied_nodes.AppliedIdentity(identity)
    model = probe.module("nodes.host.attention").with_identity(probe.a, applied)
    clip = probe.module("nodes.host.prompt_tokens").with_identity(probe.b, applied)
    text = run.config.prompts(run.captions)[0].replace("{tokens}", "<anna>")

    def answer(model, clip):
        import comfy.model_management as management

        management.load_models_gpu([model, clip.patcher])
        context, pooled = clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)
        base = model.model
        sigma = base.model_sampling.sigma(t)
        extra = backend._vector(run.latents[:1], probe.module("idea_engine.backends.base").TextCondition(None, pooled))
        return base.apply_model(run.latents[:1] + sigma.view(-1, 1, 1, 1) * noise, sigma, c_crossattn=context, transformer_options={**model.model_options["transformer_options"], "sigmas": sigma}, **extra)

    used, plain = answer(model, clip), answer(probe.a, probe.b)
    return {"difference": float((used - trained).abs().max()), "effect": float((plain - trained).abs().max())}


def borrowed_memory(probe):
    """a, b, c: MODEL, CLIP, VAE → what training makes of the models' weights: the same memory, frozen, fit for a backward pass."""
    backend = probe.module("nodes.host.backend").ComfyBackend(probe.a, probe.b, probe.c)
    backend.load()
    roots = (probe.a.model, probe.b.cond_stage_model)

    def places():
        return [p.data_ptr() for root in roots for p in root.parameters()]

    before = places()
    with backend.training():
        weights = [p for root in roots for p in root.parameters()]
        return {
            "same_memory": places() == before, "weights": len(weights), "any_inference": any(p.is_inference() for p in weights),
            "any_gradient": any(p.requires_grad for p in weights),
        }


def encodes_like_the_host(probe):
    """a, b, c: MODEL, CLIP, VAE; the out-of-place walk through the text encoder against the host's own encoding; → largest difference."""
    base = probe.module("idea_engine.backends.base")
    backend = probe.module("nodes.host.backend").ComfyBackend(probe.a, probe.b, probe.c)
    differences = []
    for text in ("a photo of a person", "a very, very long description " * 6):
        tokens = probe.b.tokenize(text)
        context, pooled = probe.b.encode_from_tokens(tokens, return_pooled=True)
        chunks = {key: [[int(entry[0]) for entry in chunk] for chunk in tokens[key.removeprefix("clip_")]] for key in backend.family.encoders}
        first = {key: torch.tensor(rows[0]) for key, rows in chunks.items()}
        end = next(iter(first.values())).tolist().index(49407)
        inputs = {key: backend.token_rows(key, ids)[None] for key, ids in first.items()}
        mine = backend.encode_text(inputs, [end])
        differences.append(float((mine.context - context[:, :77]).abs().max()))
        if mine.pooled is not None:
            differences.append(float((mine.pooled - pooled).abs().max()))
    assert isinstance(mine, base.TextCondition)
    return max(differences)


def hashes_when_loaded(probe):
    """a, b, c: MODEL, CLIP, VAE; d: another MODEL → hashes before and while they are loaded, and that of the other."""
    import comfy.model_management as management

    backend = probe.module("nodes.host.backend").ComfyBackend

    def hashes():
        made = backend(probe.a, probe.b, probe.c)
        return {"model": made.model_hash(), "text": made.text_hash}

    management.unload_all_models()
    before = hashes()
    management.load_models_gpu([probe.a, probe.b.patcher])
    try:
        return {"before": before, "loaded": hashes(), "unpatched": backend(probe.d, probe.b, probe.c).model_hash()}
    finally:
        management.unload_all_models()


def trial_device(probe):
    """The device on which :func:`mutates_saved_tensors` tries a block whose weights are elsewhere."""
    frozen = probe.module("nodes.host.frozen")
    seen = []

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm2 = torch.nn.LayerNorm(4)
            self.attn2 = torch.nn.Module()
            self.attn2.to_k = torch.nn.Linear(4, 4, device="meta")

        def forward(self, x, context, transformer_options):
            seen.extend((x.device.type, context.device.type))
            return x * 2

    options = {"patches_replace": {"attn2": {("input", 1, 0): None}}}
    with torch.inference_mode(False), torch.enable_grad():
        frozen.mutates_saved_tensors(Block(), 4, options, torch.device("cpu"))
    (device,) = set(seen)
    return device
