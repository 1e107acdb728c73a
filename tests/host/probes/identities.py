"""Looking at identities, and at the trainings the host keeps."""
from pathlib import Path


def digest(probe):
    """a: Identity → its content hash."""
    return probe.module("idea_engine.identity.operations").content_hash(probe.a)


def summary(probe):
    """a: Identity → what it consists of."""
    return {"stages": len(probe.a.stages), "face": probe.a.face is not None, "hash": digest(probe)}


def forget_trainings(probe):
    """Delete every kept training, finished or not; → how many."""
    files = [path for path in probe.module("nodes.host.paths").training_cache().iterdir() if path.is_file()]
    for path in files:
        path.unlink()
    return len(files)


def base_hash(probe):
    """a, b, c: MODEL, CLIP, VAE → the name under which advice for the model is kept."""
    return probe.module("nodes.host.backend").ComfyBackend(probe.a, probe.b, probe.c).base_hash()


def advise(probe):
    """a, b, c: MODEL, CLIP, VAE; arguments: recipe, rate → the file in models/idea/bases that advises this rate for the model."""
    import json

    import folder_paths

    base = base_hash(probe)
    folder = Path(folder_paths.get_folder_paths("idea")[0]) / "bases"
    folder.mkdir(parents=True, exist_ok=True)
    kept = {"idea.check": 1, "base": base, "recipes": {probe.arguments["recipe"]: {"rate": probe.arguments["rate"]}}}
    (folder / f"{base}.json").write_text(json.dumps(kept), encoding="utf-8")
    return str(folder / f"{base}.json")


def kept_trainings(probe):
    """→ the names of all kept trainings, finished or not."""
    return sorted(path.name for path in probe.module("nodes.host.paths").training_cache().iterdir())


def save_always(probe):
    """From now on a running training is saved as often as a twentieth of the time allows."""
    probe.module("idea_engine.training.checkpoint").SAVE_SECONDS = 0.0


def trimmed(probe):
    """Four kept trainings of 10 bytes, the first used again lately, trimmed to 25 bytes → the names that are left."""
    import os

    paths = probe.module("nodes.host.paths")
    folder = paths.training_cache()
    for age, name in enumerate(("d", "c", "b", "a")):
        (folder / name).write_bytes(b"x" * 10)
        os.utime(folder / name, (1e9 + age, 1e9 + age))
    os.utime(folder / "d", (2e9, 2e9))
    others = {path.name for path in folder.iterdir()} - set("abcd")
    size = sum((folder / name).stat().st_size for name in others)
    for name in others:
        os.utime(folder / name, (3e9, 3e9))
    paths.trim_training_cache(size + 25)
    left = {path.name for path in folder.iterdir()}
    for name in left & set("abcd"):
        (folder / name).unlink()
    return {"left": sorted(left & set("abcd")), "others": sorted(others - left)}


def damage_trainings(probe):
    """Cut every kept training short; → how many."""
    files = list(probe.module("nodes.host.paths").training_cache().glob("*.safetensors"))
    for path in files:
        path.write_bytes(path.read_bytes()[:100])
    return len(files)


def face(probe):
    """a: Identity → its face embedding, if it has one."""
    return None if probe.a.face is None else probe.a.face.tolist()


def save_over_the_limit(probe):
    """a: Identity; save it with a full disk → the error's sentence, and what is left in the folder."""
    import os
    import tempfile
    from pathlib import Path

    node = probe.module("nodes.identity").SaveIdentity()
    paths = probe.module("nodes.host.paths")
    folder = Path(tempfile.mkdtemp())
    real = os.fsync

    def full(handle):
        raise OSError(28, "No space left on device")

    os.fsync, where = full, paths.new_identity_path
    paths.new_identity_path = lambda name: folder / name
    try:
        node.save(probe.a, "anna")
        return {"error": None}
    except Exception as error:
        return {"error": str(error), "left": [path.name for path in folder.iterdir()]}
    finally:
        os.fsync, paths.new_identity_path = real, where


def tokens_only(probe):
    """a: CLIP; arguments: seed → an Identity that is nothing but its pseudo-tokens."""
    import torch

    types = probe.module("idea_engine.identity.identity")
    family = probe.module("nodes.host.family").clip_family(probe.a)
    g = torch.Generator().manual_seed(probe.arguments["seed"])
    tokens = {key: torch.randn(2, width, generator=g) for key, width in family.encoders.items()}
    return {"outputs": (types.Identity(family, tokens, types.IdentityMetadata("<anna>", "imported", family.name)),)}


def rebuilt(probe):
    """a: Identity; arguments: change → the same, as if trained on a model with other cross-attention blocks."""
    from dataclasses import replace

    made, change = probe.a, probe.arguments["change"]
    last = len(made.key_offsets) - 1
    changes = {
        "one block more": lambda: {"key_offsets": {**made.key_offsets, last + 1: made.key_offsets[0]}, "value_offsets": {**made.value_offsets, last + 1: made.value_offsets[0]}},
        "one block less": lambda: {name: {i: t for i, t in getattr(made, name).items() if i < last} for name in ("key_offsets", "value_offsets")},
        "only keys": lambda: {"value_offsets": {}},
        "another width": lambda: {"key_weights": {0: made.key_weights[0][1:]}},
    }
    return {"outputs": (replace(made, **changes[change]()),)}

def _tensors(probe, person):
    """Every tensor of an Identity, or of the one an EnhancedIdentity is at once, by its name in the file; the face aside."""
    from dataclasses import replace

    engine = probe.module("idea_engine.identity.operations")
    return engine.named_tensors(replace(engine.as_identity(person), face=None))


def sizes(probe):
    """a: EnhancedIdentity → name → norm and sum of each tensor of the identity."""
    return {name: [float(tensor.float().norm()), float(tensor.float().sum())] for name, tensor in _tensors(probe, probe.a).items()}


def distances(probe):
    """a, b, c: identities → how far b and c are from a, in shares of a."""
    import torch

    whole = {key: torch.cat([tensor.float().flatten() for _, tensor in sorted(_tensors(probe, getattr(probe, key)).items())]) for key in "abc"}
    return {f"a{key}": float((whole[key] - whole["a"]).norm() / whole["a"].norm()) for key in "bc"}
