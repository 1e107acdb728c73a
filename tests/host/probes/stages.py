"""Stages computed another way: from the host's own parts, prompt positions and timesteps, to hold the nodes against."""
import torch


def _plain(probe, identity, tokens):
    """An identity of nothing but ``tokens``."""
    types = probe.module("idea_engine.types")
    return types.Identity(identity.family, tokens, identity.metadata)


def reference(probe):
    """a: MODEL, b: CLIP, c: Identity in stages; arguments: text → a MODEL that reads the stages at the prompt's known positions, and the CLIP
    of the plain tokens. Each stage's rows come from an encoding of their own; the stage comes from the host's timestep of the noise level."""
    applied_nodes, tokens = probe.module("idea_engine.applied"), probe.module("nodes.host.prompt_tokens")
    identity, text = probe.c, probe.arguments["text"]

    def encode(rows):
        applied = applied_nodes.AppliedIdentity(_plain(probe, identity, rows))
        clip = tokens.with_identity(probe.b, applied)
        chunks = clip.tokenize(text)
        places = [position for place in tokens.find_places(chunks, [applied]) for position in place.positions]
        return clip, clip.encode_from_tokens(chunks)[0], places

    clip, plain, places = encode(identity.tokens)
    stages = [[encode(rows)[1] for rows in (stage.key, stage.value)] for stage in identity.stages]
    model = probe.a.clone()
    sampling = model.get_model_object("model_sampling")

    def patch(n, context, value, extra):
        timestep = int(sampling.timestep(extra["sigmas"].flatten()[:1].cpu())[0])
        variants = stages[timestep * len(stages) // 1000]
        size = len(context) // len(extra["cond_or_uncond"])
        keys, values = context.clone(), value.clone()
        for chunk, kind in enumerate(extra["cond_or_uncond"]):
            if kind == 0:
                for position in places:
                    for start in range(0, context.shape[1], len(plain)):  # a context that was repeated to a common length
                        keys[chunk * size : chunk * size + size, start + position] = variants[0][position].to(context)
                        values[chunk * size : chunk * size + size, start + position] = variants[1][position].to(context)
        return n, keys, values

    model.set_model_attn2_patch(patch)
    return {"outputs": (model, clip)}


def one_stage(probe):
    """a: Identity → the same with a single stage that reads the plain tokens, and the same without stages."""
    from dataclasses import replace

    types = probe.module("idea_engine.types")
    made = replace(probe.a, stages=(types.StageTokens(probe.a.tokens, probe.a.tokens),))
    return {"outputs": (made, replace(probe.a, stages=()))}


def changed(probe):
    """a: Identity; arguments: stage → the same with other tokens in that stage."""
    from dataclasses import replace

    types, stage = probe.module("idea_engine.types"), probe.arguments["stage"]
    other = types.StageTokens(*({key: rows + 1 + torch.randn(rows.shape, generator=torch.Generator().manual_seed(1)) for key, rows in tokens.items()}
                                for tokens in (probe.a.stages[stage].key, probe.a.stages[stage].value)))
    return {"outputs": (replace(probe.a, stages=(*probe.a.stages[:stage], other, *probe.a.stages[stage + 1 :])),)}


def image_prompt(probe):
    """a: MODEL → it with an image prompt as IPAdapter gives one: a replacement of every block's cross-attention that adds attention to
    further keys and values."""
    from comfy.ldm.modules.attention import optimized_attention

    model = probe.a.clone()
    blocks = probe.module("nodes.host.family").cross_attention_blocks(model.model.diffusion_model)
    for number, ((stage, index, depth), (_, block)) in enumerate(blocks.items()):
        width = block.attn2.to_k.weight.shape[0]
        g = torch.Generator().manual_seed(number)
        k, v = torch.randn(1, 4, width, generator=g), torch.randn(1, 4, width, generator=g)

        def attend(q, key, value, extra, k=k, v=v):
            heads = extra["n_heads"]
            rows = len(q)
            return optimized_attention(q, key, value, heads) + 0.5 * optimized_attention(q, k.expand(rows, -1, -1).to(q), v.expand(rows, -1, -1).to(q), heads)

        model.set_model_attn2_replace(attend, stage, index, depth)
    return {"outputs": (model,)}


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
    applied = probe.module("idea_engine.applied").AppliedIdentity(probe.c)
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
