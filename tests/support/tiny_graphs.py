"""Pieces of graphs on the tiny models of `tests/host/probes/tiny_models.py`, shared by the host tests."""
from __future__ import annotations

import json
from pathlib import Path

PORTRAIT_PACK = Path(__file__).resolve().parents[2] / "portrait_world" / "assets" / "face_pack"
FAMILIES = ("sd1", "sd2", "sd2-v", "sdxl")
PROMPT = "a photo of <anna> person wearing an oversized sweater"


def probe(graph, function: str, arguments: dict | None = None, **inputs):
    """A ProbeRun node; returns it, for its outputs."""
    return graph.add("ProbeRun", function=function, arguments=json.dumps(arguments or {}), **inputs)


def tiny(graph, family: str = "sd1", seed: int = 0):
    """MODEL, CLIP, VAE on outputs 0, 1, 2."""
    return probe(graph, "tiny_models:load", {"family": family, "seed": seed})


def random_identity(graph, loader, trigger: str = "<anna>", recipe: str = "fast", seed: int = 0, **more):
    """An Identity with every part of the recipe set, on output 0; ``stages``: how many, other than the recipe's own."""
    return probe(graph, "faces:identity", {"seed": seed, "trigger": trigger, "recipe": recipe, **more}, a=loader[1], b=loader[0])


def enhanced(graph, clip, seed: int = 0):
    """An EnhancedIdentity of a made-up face, on output 0."""
    face = probe(graph, "faces:made_up", {"seed": seed})
    return graph.add("IDEA_IDEnhancer", face=face[0], clip=clip, names="words", names_text="human face", enhancer_seed=0)


def apply(graph, model, clip, identity, strength=1.0, start_at=0.0, end_at=1.0, **more):
    return graph.add(
        "IDEA_ApplyIDAdapter", model=model, clip=clip, identity=identity, strength=strength, start_at=start_at, end_at=end_at, **more
    )


def advanced(graph, model, clip, identity, tokens=1.0, adapter=1.0, key_value=1.0, start_at=0.0, end_at=1.0, **more):
    return graph.add(
        "IDEA_ApplyIDAdapterAdvanced", model=model, clip=clip, identity=identity, token_strength=tokens, adapter_strength=adapter,
        key_value_strength=key_value, start_at=start_at, end_at=end_at, **more,
    )


def mask(graph, batch):
    return probe(graph, "masks:mask", {"batch": batch})[0]


def sample(graph, model, clip, text: str = PROMPT, positive=None, size=(64, 64), steps: int = 2, seed: int = 1, latent=None, **more):
    """A KSampler; its latent is on output 0. ``more``: its other settings."""
    positive = positive or graph.add("CLIPTextEncode", clip=clip, text=text)[0]
    negative = graph.add("CLIPTextEncode", clip=clip, text="ugly")
    latent = latent or graph.add("EmptyLatentImage", width=size[0], height=size[1], batch_size=1)[0]
    return graph.add(
        "KSampler", model=model, positive=positive, negative=negative[0], latent_image=latent, seed=seed, steps=steps,
        **{"cfg": 5.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, **more},
    )


def train(graph, loader, image, enhancement, **settings):
    values = dict(trigger="<anna>", recipe="fast", steps=3, batch=2, lr=0.0, resolution=64, seed=0)
    return graph.add(
        "IDEA_TrainIDEA", model=loader[0], clip=loader[1], vae=loader[2], image=image, enhanced=enhancement, **{**values, **settings}
    )


def face_model(host, graph):
    """The Portrait World's own face pack, opened; a socket."""
    pack = host.base.add_face_pack(PORTRAIT_PACK, "portrait")
    return graph.add("IDEA_LoadFaceModel", pack=pack, provider="CPU", detection_size=320)[0]


def photographs(graph, shots, **more):
    """Photographs of the Portrait World's people, a socket; see ``artist:photographs``."""
    return probe(graph, "artist:photographs", {"shots": shots, **more})[0]
