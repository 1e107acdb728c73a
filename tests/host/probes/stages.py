"""Stages computed another way: from the host's own parts, prompt positions and timesteps, to hold the nodes against."""
import torch


def _plain(probe, identity, tokens):
    """An identity of nothing but ``tokens``."""
    types = probe.module("idea_engine.identity.identity")
    return types.Identity(identity.family, tokens, identity.metadata)


def reference(probe):
    """a: MODEL, b: CLIP, c: Identity in stages; arguments: text → a MODEL that reads the stages at the prompt's known positions, and the CLIP
    of the plain tokens. Each stage's rows come from an encoding of their own; the stage comes from the host's timestep of the noise level; the
    prompt is found, wherever it was wired, by all of its numbers."""
    applied_nodes, tokens = probe.module("idea_engine.applying.applied"), probe.module("nodes.host.prompt_tokens")
    identity, text = probe.c, probe.arguments["text"]

    def encode(rows):
        applied = applied_nodes.AppliedIdentity(_plain(probe, identity, rows))
        clip = tokens.with_identity(probe.b, applied)
        chunks = clip.tokenize(text)
        places = [position for place in probe.module("nodes.host.places").find_places(chunks, [applied]) for position in place.positions]
        return clip, clip.encode_from_tokens(chunks)[0], places

    clip, plain, places = encode(identity.tokens)
    stages = [[encode(rows)[1] for rows in (stage.key, stage.value)] for stage in identity.stages]
    model = probe.a.clone()
    sampling = model.get_model_object("model_sampling")

    def patch(n, context, value, extra):
        timestep = int(sampling.timestep(extra["sigmas"].flatten()[:1].cpu())[0])
        variants = stages[timestep * len(stages) // 1000]
        keys, values = context.clone(), value.clone()
        for row in range(len(context)):
            for start in range(0, context.shape[1] - len(plain) + 1, 77):  # joined to others, or repeated to a common length
                if torch.equal(context[row, start : start + len(plain)], plain.to(context)):
                    for position in places:
                        keys[row, start + position] = variants[0][position].to(context)
                        values[row, start + position] = variants[1][position].to(context)
        return n, keys, values

    model.set_model_attn2_patch(patch)
    return {"outputs": (model, clip)}


def one_stage(probe):
    """a: Identity → the same with a single stage that reads the plain tokens, and the same without stages."""
    from dataclasses import replace

    types = probe.module("idea_engine.identity.identity")
    made = replace(probe.a, stages=(types.StageTokens(probe.a.tokens, probe.a.tokens),))
    return {"outputs": (made, replace(probe.a, stages=()))}


def changed(probe):
    """a: Identity; arguments: stage → the same with other tokens in that stage."""
    from dataclasses import replace

    types, stage = probe.module("idea_engine.identity.identity"), probe.arguments["stage"]
    other = types.StageTokens(*({key: rows + 1 + torch.randn(rows.shape, generator=torch.Generator().manual_seed(1)) for key, rows in tokens.items()}
                                for tokens in (probe.a.stages[stage].key, probe.a.stages[stage].value)))
    return {"outputs": (replace(probe.a, stages=(*probe.a.stages[:stage], other, *probe.a.stages[stage + 1 :])),)}


class _ImagePrompts:
    """What IPAdapter, InstantID and PuLID keep in place of a cross-attention: it attends to the text itself, and to one image prompt after another."""

    def __init__(self, callback, **settings):
        self.callbacks, self.settings = [callback], [settings]

    def add(self, callback, **settings):
        self.callbacks.append(callback)
        self.settings.append(settings)

    def __call__(self, q, k, v, extra):
        from comfy.ldm.modules.attention import optimized_attention

        out = optimized_attention(q, k, v, extra["n_heads"])
        sigma = extra["sigmas"].detach().cpu()[0].item()
        for callback, settings in zip(self.callbacks, self.settings):
            if settings["sigma_end"] <= sigma <= settings["sigma_start"]:
                out = out + callback(q, extra, **settings)
        return out.to(q.dtype)


def _look_at_the_image(q, extra, cond, uncond, weight, **_):
    """Attention to keys and values of the image where the batch holds the prompt, and of no image where it holds the negative."""
    from comfy.ldm.modules.attention import optimized_attention

    pictures = len(q) // len(extra["cond_or_uncond"])
    k, v = (torch.cat([(cond, uncond)[kind][number].repeat(pictures, 1, 1) for kind in extra["cond_or_uncond"]]).to(q) for number in (0, 1))
    return weight * optimized_attention(q, k, v, extra["n_heads"])


def image_prompt(probe):
    """a: MODEL; arguments: seed → it with an image prompt as IPAdapter gives one.

    In ``patches_replace`` lies an object with ``add``, under (stage, block) for SD1 and (stage, block, depth) for SDXL; a second image prompt is
    added to the object of the first.
    """
    model, seed = probe.a.clone(), probe.arguments.get("seed", 0)
    sampling = model.get_model_object("model_sampling")
    options = model.model_options["transformer_options"].copy()
    options["patches_replace"] = dict(options.get("patches_replace", {}))
    slots = options["patches_replace"]["attn2"] = dict(options["patches_replace"].get("attn2", {}))
    blocks = probe.module("nodes.host.family").cross_attention_blocks(model.model.diffusion_model)
    deep = any(depth for _, _, depth in blocks) or model.model.diffusion_model.num_classes is not None  # SDXL
    for number, (key, (_, block)) in enumerate(blocks.items()):
        g = torch.Generator().manual_seed(100 * seed + number)
        cond, uncond = ([torch.randn(1, 4, block.attn2.to_k.weight.shape[0], generator=g) for _ in range(2)] for _ in range(2))
        settings = dict(
            cond=cond, uncond=uncond, weight=0.5, sigma_start=sampling.percent_to_sigma(0.0), sigma_end=sampling.percent_to_sigma(0.9),
        )
        key = key if deep else key[:2]
        if key in slots:
            slots[key].add(_look_at_the_image, **settings)
        else:
            slots[key] = _ImagePrompts(_look_at_the_image, **settings)
    model.model_options["transformer_options"] = options
    return {"outputs": (model,)}


def compiled(probe):
    """a: MODEL → it as TorchCompileModel makes it, but with the compiler's backend that only records and runs what it is given."""
    model = probe.a.clone()
    try:
        from comfy_api.torch_helpers import set_torch_compile_wrapper
    except ImportError:  # June 2024
        model.add_object_patch("diffusion_model", torch.compile(model=model.get_model_object("diffusion_model"), backend="eager"))
    else:
        set_torch_compile_wrapper(model=model, backend="eager")
    return {"outputs": (model,)}


def compilations(probe):
    """a: whatever was made last → how many pieces of code the compiler has looked at since the process began."""
    from torch._dynamo.utils import counters

    return sum(counters["frames"].values())


def counted(probe):
    """a: MODEL → it with a count of its UNet calls, which :func:`calls` reads."""
    model = probe.a.clone()
    seen = []

    def wrapper(apply_model, options):
        seen.append(len(options["input"]))
        return apply_model(options["input"], options["timestep"], **options["c"])

    wrapper.seen = seen
    model.set_model_unet_function_wrapper(wrapper)
    return {"outputs": (model,)}


def calls(probe):
    """a: a MODEL of :func:`counted`, b: whatever it made → the batch size of every UNet call."""
    return probe.a.model_options["model_function_wrapper"].seen


def sigma_reads(probe):
    """a: MODEL, b: CLIP, c: Identity → how often a step of sampling reads the noise level from the device, over all blocks."""
    applied = probe.module("idea_engine.applying.applied").AppliedIdentity(probe.c)
    model = probe.module("nodes.host.attention").with_identity(probe.a, applied)
    context = probe.module("nodes.host.prompt_tokens").with_identity(probe.b, applied)
    context = context.encode_from_tokens(context.tokenize("a photo of <anna> person"))
    (patch,) = model.model_options["transformer_options"]["patches"]["attn2_patch"]
    reads = []

    class Counted(torch.Tensor):
        def __float__(self):
            reads.append(1)
            return float(self.as_subclass(torch.Tensor))

    sigmas = torch.tensor([5.0]).as_subclass(Counted)
    for stage, index, depth in probe.module("nodes.host.family").cross_attention_blocks(probe.a.model.diffusion_model):
        patch(torch.zeros(1, 4, 8), context, context, {"block": (stage, index), "block_index": depth, "sigmas": sigmas})
    return len(reads)
