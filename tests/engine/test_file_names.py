"""Names that people type, links in folders, and what helps where nothing can be written."""
import errno
import sys

import pytest

from idea_engine.errors import IdentityFileError
from idea_engine.files.file_names import leads_out, portable_parts, walk, write_advice

links = pytest.mark.skipif(sys.platform == "win32", reason="links need a permission there")


@pytest.mark.parametrize("name", ["anna", "family/anna", "安娜", "Müller-Lüdenscheidt", "a.b", "com", "COM12", "नेहा", "می\u200cخواهم", "anna 2", "x" * 240])
def test_usual_names_are_taken(name):
    assert "/".join(portable_parts(name)) == name


@pytest.mark.parametrize("name, why", [
    ("", "empty"), ("  ", "empty"), ("/", "empty"), ("../anna", "leads out"), ("a/../../b", "leads out"), ("..\\anna", "leads out"), ("/anna", "leads out"),
    ("C:anna", "Windows"), ("a?", "Windows"), ("anna.", "dot"), ("anna ", "space"), ("a./b", "dot"), ("CON", "device"), ("con.x", "device"), ("aux /b", "device|space"),
    ("COM1", "device"), ("COM¹", "device"), ("lpt².safetensors", "device"), ("CONIN$", "device"), ("conout$.a", "device"), ("clock$", "device"),
    ("anna\u202egpj", "cannot be seen"), ("an\u200fna", "cannot be seen"), ("a\nb", "cannot be seen"), ("a\x00b", "cannot be seen"), ("a\x7fb", "cannot be seen"),
    ("a\ud800", "cannot be seen"), ("\ufeffanna", "cannot be seen"), ("x" * 256, "fit on most disks"), ("ä" * 130, "fit on most disks"),
])
def test_a_name_that_some_system_cannot_store_is_refused(name, why):
    with pytest.raises(ValueError, match=why) as error:
        portable_parts(name)
    str(error.value).encode()


@links
def test_links_are_followed_once_and_loops_end(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for place in ("a/x", "a/b/y"):
        (tmp_path / place).write_text("")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "two").symlink_to(tmp_path / "a", target_is_directory=True)
    found = [str((folder / name).relative_to(tmp_path)) for folder, names in walk(tmp_path) for name in names if name in "xy"]
    assert sorted(found) == ["a/b/y", "a/x"]


@links
def test_a_link_that_leads_out_is_told(tmp_path):
    root, outside = tmp_path / "idea", tmp_path / "elsewhere"
    root.mkdir(), outside.mkdir(), (root / "inside").mkdir()
    (root / "out").symlink_to(outside, target_is_directory=True)
    (root / "in").symlink_to(root / "inside", target_is_directory=True)
    (root / "loop").symlink_to(root / "loop")
    assert leads_out(root / "out", root) and leads_out(root / "out" / "x", root) and leads_out(root / "loop" / "x", root)
    assert not leads_out(root / "in", root) and not leads_out(root / "new" / "x", root)
    (tmp_path / "linked").symlink_to(root, target_is_directory=True)  # the models folder itself may lie on another disk
    assert not leads_out(tmp_path / "linked" / "inside", tmp_path / "linked")


@pytest.mark.parametrize("number, says, not_said", [
    (errno.EACCES, "folder /models/idea cannot be written to", "space"), (errno.EROFS, "change its permissions", "shorter"), (errno.ENOSPC, "17 kB are needed. Free some", "permissions"),
    (errno.ENAMETOOLONG, "choose a shorter one", "space"),
])
def test_the_advice_fits_the_trouble(number, says, not_said):
    from pathlib import Path

    told = write_advice(OSError(number, ""), Path("/models/idea/anna.safetensors"), 17_000)
    assert says in told and not_said not in told


def test_a_folder_that_cannot_be_written_to_is_named_and_not_the_file(tmp_path, monkeypatch):
    import torch

    from idea_engine.backends.family import ModelFamily
    from idea_engine.identity import file as identity_file
    from idea_engine.identity.file import save_identity
    from idea_engine.identity.identity import Identity, IdentityMetadata

    def refused(path, write):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(identity_file, "atomic_write", refused)
    made = Identity(ModelFamily("sd1", {"clip_l": 8}), {"clip_l": torch.zeros(2, 8)}, IdentityMetadata("<anna>", "fast", "sd1"))
    with pytest.raises(IdentityFileError, match=f"The folder {tmp_path} cannot be written to: change its permissions") as error:
        save_identity(made, tmp_path / "anna")
    assert "space" not in str(error.value) and "filename" not in str(error.value)
