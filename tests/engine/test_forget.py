"""A person who changes their mind leaves no trace, and nobody else loses anything."""
import os

import pytest
import torch

from idea_engine.backends.family import ModelFamily
from idea_engine.identity.file import save_identity
from idea_engine.identity.forget import plain_name, quickstart_folder, quickstart_hosts, traces
from idea_engine.identity.identity import Identity, IdentityMetadata
from idea_engine.training.checkpoint import Checkpoint, Progress


def person(name, seed):
    rows = torch.randn(2, 768, generator=torch.Generator().manual_seed(seed))
    return Identity(ModelFamily("sd1", {"clip_l": 768}), {"clip_l": rows}, IdentityMetadata(f"<{name}>", "fast", "sd1"))


def partial(path, trigger):
    module = torch.nn.Linear(2, 2)
    Checkpoint(path, trigger=trigger).save(module, torch.optim.AdamW(module.parameters()), Progress(1, [0.0], 0, 1.0))


def everything(root):
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() or path.is_symlink()}


@pytest.fixture
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("IDEA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return tmp_path / "cache"


def test_every_trace_goes_and_everybody_else_stays(tmp_path, caches):
    folder, host = tmp_path / "identities", tmp_path / "ComfyUI"
    cache = host / "user" / "idea" / "cache"
    for name, seed in (("anna", 1), ("ben", 2), ("anna-maria", 3)):
        save_identity(person(name, seed), folder / name)
        save_identity(person(name, seed), host / "models" / "idea" / "family" / name)
        save_identity(person(name, seed), cache / f"{seed}")
        partial(cache / f"{seed}.partial", f"<{name}>")
        partial(folder / f".{name}-0123456789ab.partial", f"<{name}>")
        (folder / f".{name}.lock").write_text("")
        (folder / f".{name}-abcd1234.tmp").write_text("old copy")
        (folder / "previews").mkdir(exist_ok=True)
        (folder / "previews" / f"{name}-10.png").write_text("preview")
    save_identity(person("another-trigger", 1), cache / "renamed")  # the same rows, learned under another word
    partial(cache / "old.partial", "")
    for harmless in ("anna.txt", "anna.png", "deep/er/still/anna.safetensors", ".git/anna.safetensors"):
        (folder / harmless).parent.mkdir(parents=True, exist_ok=True)
        (folder / harmless).write_text("not hers")
    torch.save({"model": torch.zeros(5)}, folder / "anna.pt")  # a network of the same name
    for name in ("anna", "ben"):  # saves that were killed; the next save of anybody would sweep them
        copy = folder / f".{name}-0123456789abcdef.idea-part"
        copy.mkdir()
        (copy / "content").write_text("killed")
    before = everything(tmp_path)
    found = traces("anna", [folder], [host])
    for trace in found:
        trace.remove()
    gone = before - everything(tmp_path)
    assert gone == {
        "identities/anna.safetensors", "identities/.anna-0123456789ab.partial", "identities/.anna.lock", "identities/.anna-abcd1234.tmp",
        "identities/.anna-0123456789abcdef.idea-part/content", "identities/previews/anna-10.png", "ComfyUI/models/idea/family/anna.safetensors",
        "ComfyUI/user/idea/cache/1.safetensors", "ComfyUI/user/idea/cache/1.partial", "ComfyUI/user/idea/cache/renamed.safetensors",
        "ComfyUI/user/idea/cache/old.partial",
    }
    assert len(found) == len(gone) and traces("anna", [folder], [host]) == []


def test_quickstart_forgets_the_photograph_too(tmp_path, caches):
    own = tmp_path / "mine.safetensors"
    save_identity(person("anna", 1), own)
    for seed, (name, who) in enumerate((("comfyui-1", "anna"), ("comfyui-2", "ben"))):
        base = caches / "quickstart" / name
        for part in ("input/photo.jpg", "output/ID-EA/demo_1.png", "temp/x.png", "models/checkpoints/sd15.safetensors", "custom_nodes/x.py", "host.log"):
            (base / part).parent.mkdir(parents=True, exist_ok=True)
            (base / part).write_text("x")
        save_identity(person(who, seed), base / "models" / "idea" / who)
        save_identity(person(who, seed), base / "user" / "idea" / "cache" / "1")
    (caches / "quickstart" / "comfyui-1" / "models" / "idea" / "linked.safetensors").symlink_to(own)
    for trace in traces("anna", [tmp_path / "nowhere"], quickstart_hosts()):
        trace.remove()
    assert everything(caches / "quickstart" / "comfyui-1") == {"models/checkpoints/sd15.safetensors", "custom_nodes/x.py"} and own.is_file()
    assert len(everything(caches / "quickstart" / "comfyui-2")) == 8


def test_a_photograph_of_a_quickstart_that_was_stopped_early_goes(tmp_path, caches):
    from launcher.portrait import TRIGGER

    photo = caches / "quickstart" / "comfyui-1" / "input" / "photo.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_text("x")
    assert traces("ben", [tmp_path / "nowhere"], quickstart_hosts()) == []
    for trace in traces(TRIGGER.strip("<>"), [tmp_path / "nowhere"], quickstart_hosts()):
        trace.remove()
    assert not photo.exists()


def test_the_quickstarts_folder_is_where_the_launcher_has_it(monkeypatch):
    from launcher import cache

    for chosen in ("/somewhere/else", "~/there", None):
        monkeypatch.setenv("IDEA_CACHE", chosen) if chosen else monkeypatch.delenv("IDEA_CACHE", raising=False)
        assert quickstart_folder() == cache.quickstart_folder()


@pytest.mark.parametrize("text", ["anna", "<anna>", "anna.safetensors", "anna.BIN", " anna "])
def test_a_person_may_be_named_in_several_ways(text):
    assert plain_name(text) == "anna"


def test_a_name_is_no_pattern(tmp_path, caches):
    save_identity(person("anna", 1), tmp_path / "anna")
    assert traces(".*", [tmp_path]) == [] and traces("a?na", [tmp_path]) == []
    assert os.listdir(tmp_path) == ["anna.safetensors"]
