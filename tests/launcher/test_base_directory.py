"""A host's folder of its own: what is given appears in it, and nothing lands outside."""
import pytest

from launcher import base_directory
from launcher.base_directory import BaseDirectory, place, safe_name
from launcher.errors import LauncherError


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", "a\\b", "c:x", "what?", "nul\0", "a*"])
def test_a_name_that_is_a_path_is_refused(name):
    with pytest.raises(LauncherError, match="plain file name"):
        safe_name(name)


def test_ordinary_names_pass():
    assert safe_name("v1-5 pruned (1).safetensors") == "v1-5 pruned (1).safetensors"


@pytest.mark.parametrize("links", [True, False], ids=["links", "copies"])
def test_a_pack_and_a_checkpoint_are_placed_and_replaced(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(base_directory.Path, "symlink_to", lambda *_, **__: (_ for _ in ()).throw(OSError("not allowed")))
    pack = tmp_path / "pack"
    (pack / "__pycache__").mkdir(parents=True)
    (pack / "__init__.py").write_text("1", encoding="utf-8")
    checkpoint = tmp_path / "model.safetensors"
    checkpoint.write_bytes(b"weights")
    base = BaseDirectory.make(tmp_path / "base")
    for _ in range(2):
        placed = base.add_node_pack(pack, "ID-EA")
        assert base.add_checkpoint(checkpoint) == "model.safetensors"
    assert (placed / "__init__.py").read_text(encoding="utf-8") == "1"
    assert (base.root / "models/checkpoints/model.safetensors").read_bytes() == b"weights"
    assert placed.is_symlink() == links and (links or not (placed / "__pycache__").exists())


def test_replacing_a_link_leaves_what_it_showed(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "kept").write_text("", encoding="utf-8")
    (tmp_path / "new").mkdir()
    place(tmp_path / "old", tmp_path / "shown")
    place(tmp_path / "new", tmp_path / "shown")
    assert (tmp_path / "old" / "kept").exists() and not (tmp_path / "shown" / "kept").exists()


def test_what_does_not_exist_is_named(tmp_path):
    with pytest.raises(LauncherError, match="nowhere does not exist"):
        place(tmp_path / "nowhere", tmp_path / "target")
