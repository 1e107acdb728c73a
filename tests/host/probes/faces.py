"""Faces without a recognizer, for tests that are not about recognizing."""
import torch


def made_up(probe):
    """arguments: seed → a FaceEmbedding."""
    vector = torch.nn.functional.normalize(torch.randn(1, 512, generator=torch.Generator().manual_seed(probe.arguments.get("seed", 0))), dim=1)
    face = probe.module("idea_engine.faces.embedding").FaceEmbedding(
        vector, torch.ones(1), torch.zeros(1, 4), torch.zeros(1, 5, 2), torch.zeros(1, 112, 112, 3), (torch.ones(64, 64),), (0,), "made up", "none"
    )
    return {"outputs": (face,)}


def identity(probe):
    """a: CLIP, b: MODEL; arguments: seed, trigger, recipe, stages, anchor_seed → an Identity with every part set to random values, as if trained."""
    from dataclasses import replace

    types = probe.module("idea_engine.identity.identity")
    backend = probe.module("nodes.host.backend").TextBackend(probe.a)
    family, d, n = backend.family, backend.family.context_width, 2
    blocks = probe.module("nodes.host.family").cross_attention_blocks(probe.b.model.diffusion_model)
    g = torch.Generator().manual_seed(probe.arguments.get("seed", 0))

    def rand(*shape, scale=1.0):
        return torch.randn(*shape, generator=g) * scale

    def anchor(width):
        own = torch.Generator().manual_seed(probe.arguments["anchor_seed"]) if "anchor_seed" in probe.arguments else g
        return torch.randn(n, width, generator=own)

    recipe = probe.arguments.get("recipe", "fast")
    attention = {"in_proj_weight": rand(3 * d, d, scale=d**-0.5), "in_proj_bias": rand(3 * d, scale=0.1), "out_proj.weight": rand(d, d, scale=d**-0.5), "out_proj.bias": rand(d, scale=0.1)}
    made = types.Identity(
        family,
        tokens={key: rand(n, width) for key, width in family.encoders.items()},
        anchor={key: anchor(width) for key, width in family.encoders.items()},
        adapter=types.AdapterWeights(rand(n, d), attention, 0.3, "tokens" if recipe == "fast" else "prompt"),
        metadata=types.IdentityMetadata(probe.arguments.get("trigger", "<anna>"), recipe, family.name),
    )
    if recipe == "fast":
        made = replace(made, key_offsets={i: rand(n, d) for i in range(len(blocks))}, value_offsets={i: rand(n, d) for i in range(len(blocks))}, ending=rand(d, scale=0.5))
    if recipe == "paper":
        widths = [block.attn2.to_k.weight.shape[0] for _, block in blocks.values()]
        made = replace(
            made, key_weights={i: rand(c, d, scale=0.05) for i, c in enumerate(widths)}, value_weights={i: rand(c, d, scale=0.05) for i, c in enumerate(widths)}
        )
    stages = probe.arguments.get("stages", 5 if recipe == "sefi" else 0)
    if recipe == "sefi":
        made = replace(made, adapter=None)
    if stages:
        tokens = lambda: {key: rand(n, width) for key, width in family.encoders.items()}  # noqa: E731
        made = replace(made, stages=tuple(types.StageTokens(tokens(), tokens()) for _ in range(stages)))
    return {"outputs": (probe.module("idea_engine.identity.operations").rounded(made),)}


def describe(probe):
    """a: FaceEmbedding → what it holds."""
    face = probe.a
    return {
        "faces": len(face), "boxes": face.boxes.tolist(), "norm": float(face.mean().norm()), "vector": face.mean().tolist(),
        "recognizer": face.recognizer, "licence": face.licence,
    }


def anchors(probe):
    """a, b, c: EnhancedIdentity → the first values of each anchor."""
    return [next(iter(one.anchor.rows.values()))[:, :4].tolist() for one in (probe.a, probe.b, probe.c)]


def without_insightface(probe):
    """arguments: pack → what LoadFaceModel says where insightface cannot be imported."""
    import sys

    node = probe.module("nodes.face").LoadFaceModel()
    hidden = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "insightface"}
    for name in hidden:
        del sys.modules[name]
    sys.modules["insightface"] = None
    try:
        node.load(probe.arguments["pack"], "CPU", 640)
    except Exception as error:
        return str(error)
    finally:
        del sys.modules["insightface"]
        sys.modules.update(hidden)
    return "no error"
