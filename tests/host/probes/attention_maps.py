"""The attention viewer's numbers against the host's own projections."""
import torch


def words(probe):
    """a: CLIP; arguments: text → [label, what the tokenizer has at its positions]."""
    watch = probe.module("nodes.host.attention_watch")
    key = next(iter(probe.module("nodes.host.family").clip_encoders(probe.a)))
    entries = [entry[0] for chunk in probe.a.tokenize(probe.arguments["text"])[key.removeprefix("clip_")] for entry in chunk]
    vocabulary = getattr(probe.a.tokenizer, key).inv_vocab
    read = lambda token: "*" if torch.is_tensor(token) else vocabulary[token]  # noqa: E731
    return [[word.label, "".join(read(entries[p]) for p in word.positions)] for word in watch.words_of(probe.a, probe.arguments["text"])]


def numbers(probe):
    """a: MODEL, b: CLIP, c: LATENT; arguments: text → how far the maps are from what they must be."""
    watch = probe.module("nodes.host.attention_watch")
    blocks = probe.module("nodes.host.family").cross_attention_blocks(probe.a.model.diffusion_model)
    text, latent = probe.arguments["text"], probe.c["samples"]
    named = watch.words_of(probe.b, text)
    length = probe.b.encode_from_tokens(probe.b.tokenize(text)).shape[1]
    every = [watch.Word(str(position), (position,)) for position in range(length)]
    seen, handles = {}, []
    for number, (_, block) in enumerate(blocks.values()):
        for name in ("to_q", "to_k"):
            projection = getattr(block.attn2, name)
            handles.append(projection.register_forward_hook(lambda m, a, out, key=(number, name): seen.setdefault(key, []).append(out.float())))
    try:
        alone = watch.look(probe.a, probe.b, text, every, latent, 0.4, 0)
    finally:
        for handle in handles:
            handle.remove()
    together = watch.look(probe.a, probe.b, text, named, latent, 0.4, 0)
    hand = []
    coarse = probe.module("idea_engine.backends.attention_maps")
    scales = probe.module("nodes.host.family").cross_attention_scales(probe.a.model.diffusion_model)
    for number in coarse.map_blocks(scales):
        block = list(blocks.values())[number][1]
        q, k = (seen[number, name][-1][0].unflatten(-1, (block.n_heads, -1)).transpose(0, 1) for name in ("to_q", "to_k"))
        weights = torch.softmax(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5, -1).mean(0)
        grid = weights.T.unflatten(1, coarse.grid_size(latent.shape[-2:], scales[number]))[None]
        hand.append(torch.nn.functional.interpolate(grid, size=latent.shape[-2:], mode="bilinear", align_corners=False)[0])
    sums = torch.stack([alone[list(word.positions)].sum(0) for word in named])
    return {
        "sum": float((alone.sum(0) - 1).abs().max()), "words": float((together - sums).abs().max() / sums.max()),
        "hand": float((torch.stack(hand).mean(0) - alone).abs().max()), "largest": float(alone.max()), "shape": list(together.shape),
        "labels": [word.label for word in named], "positions": [len(word.positions) for word in named],
    }


def attention_calls(probe):
    """a: MODEL, b: CLIP, c: the untouched MODEL; arguments: text → how often one UNet call of each uses the host's attention, and our maps."""
    import comfy.ldm.modules.attention as host_attention
    import comfy.sample
    import comfy.samplers

    watch, text = probe.module("nodes.host.attention_watch"), probe.arguments["text"]
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    calls = {"host": 0, "maps": 0}

    def counted(function, name):
        def count(*args, **kwargs):
            calls[name] += 1
            return function(*args, **kwargs)

        return count

    def counts(action):
        calls.update(host=0, maps=0)
        action()
        return dict(calls)

    def draw(model):
        sigmas = torch.tensor([float(model.get_model_object("model_sampling").percent_to_sigma(0.4)), 0.0])
        comfy.sample.sample_custom(model, torch.randn_like(latent), 1.0, comfy.samplers.sampler_object("euler"), sigmas, condition, condition, latent,
                                   disable_pbar=True, seed=0)

    condition = [[probe.b.encode_from_tokens(probe.b.tokenize(text)), {}]]
    words = watch.words_of(probe.b, text)
    replaced = [(host_attention, "optimized_attention", "host"), (host_attention, "optimized_attention_masked", "host"), (watch, "attention_columns", "maps")]
    originals = [getattr(module, attribute) for module, attribute, _ in replaced]
    try:
        for (module, attribute, name), original in zip(replaced, originals):
            setattr(module, attribute, counted(original, name))
        encoding = counts(lambda: probe.b.encode_from_tokens(probe.b.tokenize(text)))
        drawing, plain = counts(lambda: draw(probe.a)), counts(lambda: draw(probe.c))
        looking = counts(lambda: watch.look(probe.a, probe.b, text, words, latent, 0.4, 0))
    finally:
        for (module, attribute, _), original in zip(replaced, originals):
            setattr(module, attribute, original)
    scales = probe.module("nodes.host.family").cross_attention_scales(probe.a.model.diffusion_model)
    blocks = len(probe.module("idea_engine.backends.attention_maps").map_blocks(scales))
    return {"plain": plain, "drawing": drawing, "looking": {**looking, "host": looking["host"] - encoding["host"]}, "blocks": blocks}


def shapes(probe):
    """a, b: IMAGEs, c: STRING → sizes, whether the tiles differ, and the text."""
    return {"sheet": list(probe.a.shape), "tiles": list(probe.b.shape), "report": probe.c, "distinct": len({tile.numpy().tobytes() for tile in probe.b})}
