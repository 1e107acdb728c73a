"""What the patched cross-attention reads, block by block."""
import torch


def contexts(probe):
    """a, b: MODEL, CLIP; c: Identity → differences from contexts computed by hand, and whether a foreign context passes untouched."""
    applied = probe.module("idea_engine.applying.applied").AppliedIdentity(probe.c)
    model = probe.module("nodes.host.attention").with_identity(probe.a, applied)
    clip = probe.module("nodes.host.prompt_tokens").with_identity(probe.b, applied)
    tokens = clip.tokenize("a photo of <anna> person")
    positive = clip.encode_from_tokens(tokens)
    negative = clip.encode_from_tokens(clip.tokenize("ugly"))
    places = probe.module("nodes.host.places").find_places(tokens, [applied])[0].positions
    (patch,) = model.model_options["transformer_options"]["patches"]["attn2_patch"]
    batch = torch.cat([negative, positive])
    n = torch.zeros(2, 4, 8)
    worst = {"own_positions": 0.0, "other_positions": 0.0, "negative": 0.0}
    blocks = list(probe.module("nodes.host.family").cross_attention_blocks(probe.a.model.diffusion_model))
    for number, (stage, index, depth) in enumerate(blocks):
        _, keys, values = patch(n, batch, batch, {"block": (stage, index), "block_index": depth, "sigmas": torch.tensor([5.0])})
        for found, offsets in ((keys, probe.c.key_offsets), (values, probe.c.value_offsets)):
            expected = positive[0].clone()
            expected[list(places)] += offsets[number].float()
            difference = (found[1] - expected).abs()
            others = [i for i in range(len(expected)) if i not in places]
            worst["own_positions"] = max(worst["own_positions"], float(difference[list(places)].max()))
            worst["other_positions"] = max(worst["other_positions"], float(difference[others].max()))
            worst["negative"] = max(worst["negative"], float((found[0] - negative[0]).abs().max()))
    foreign = torch.randn(2, 77, batch.shape[-1])
    _, keys, values = patch(n, foreign, foreign, {"block": blocks[0][:2], "block_index": blocks[0][2], "sigmas": torch.tensor([5.0])})
    return {**worst, "blocks": len(blocks), "passes_through": torch.equal(keys, foreign) and torch.equal(values, foreign)}
