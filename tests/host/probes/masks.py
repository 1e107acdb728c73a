"""Masks of identities, held against computations that know nothing of how the pack blends."""
import torch


def mask(probe):
    """arguments: rows, each a list of values, or batch: a list of such → MASK."""
    return {"outputs": (torch.tensor(probe.arguments["batch"], dtype=torch.float32),)}


def grids(probe):
    """arguments: cases [[height, width, tokens], …] → the grids."""
    token_grid = probe.module("nodes.host.masks").token_grid
    return [list(token_grid(*case)) for case in probe.arguments["cases"]]


def region_weights(probe):
    """arguments: masks name → nested list, height, width, tokens, pictures, copies → [[sorted absent names, weights (B, N)], …]."""
    a = probe.arguments
    masks = {name: torch.tensor(value) for name, value in a["masks"].items()}
    found = probe.module("nodes.host.masks").regions(masks, a["height"], a["width"], a["tokens"], a["pictures"], a["copies"])
    return [[sorted(region.absent), region.weight[..., 0].tolist()] for region in found]


def first_block(probe):
    """a: MODEL with a masked identity, b: the same identity without a mask, c: the untouched MODEL, d: (conditioning with the person, plain one)

    arguments: size [h, w] of the latent, weights: one per position of the first block, timestep → largest deviation of the first cross-attention's
    output from the mix of the two others, and how far those are apart. Every output patch of one UNet call is recorded by a patch behind ours.
    """
    height, width = probe.arguments["size"]
    person, plain = probe.d
    latent = torch.randn(1, 4, height, width, generator=torch.Generator().manual_seed(5))

    def output(model, condition):
        seen = []
        clone = model.clone()

        def record(n, extra):
            seen.append(n.detach().float().clone())
            return n

        clone.set_model_attn2_output_patch(record)
        base = clone.model
        options = dict(clone.model_options["transformer_options"], cond_or_uncond=[0])
        sigma = base.model_sampling.sigma(torch.tensor([probe.arguments.get("timestep", 500)]))
        options["sigmas"] = sigma
        base.apply_model(latent, sigma, c_crossattn=condition[0][0], transformer_options=options)
        return seen[0]

    import comfy.model_management as management

    management.load_models_gpu([probe.a, probe.b, probe.c])
    masked, present, absent = output(probe.a, person), output(probe.b, person), output(probe.c, plain)
    weight = torch.tensor(probe.arguments["weights"], dtype=torch.float32)[None, :, None]
    mixed = weight * present + (1 - weight) * absent
    return {"deviation": float((masked - mixed).abs().max()), "effect": float((present - absent).abs().max())}


def columns(probe):
    """a: MODEL with a mask, b: whatever it made last; arguments: size [h, w] of what the network saw → the mask's mean in each of w columns."""
    height, width = probe.arguments["size"]
    (patch,) = probe.a.model_options["transformer_options"]["patches"]["attn2_patch"]
    ((key, found),) = [item for item in patch._seen[4].items() if isinstance(item[0], tuple) and item[0][0][1] == height * width]
    assert key[1:] == (height, width)
    (weight,) = [region.weight for region in found if not region.absent]
    return weight[0, :, 0].unflatten(0, (height, width)).mean(0).tolist()


def pair(probe):
    """a, b: two values → them as one, for a probe with few inputs."""
    return {"outputs": ((probe.a, probe.b),)}


def pictures_apart(probe):
    """a, b: LATENTs → the largest difference of each picture of the batch."""
    return (probe.a["samples"] - probe.b["samples"]).abs().flatten(1).max(1).values.tolist()
