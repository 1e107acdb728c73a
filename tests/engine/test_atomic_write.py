"""A file is replaced wholly or not at all."""
import os
import stat
import sys

import pytest

from idea_engine.atomic_write import atomic_write


@pytest.mark.parametrize("write", [b"new", lambda path: path.write_bytes(b"new")], ids=["bytes", "function"])
def test_a_file_is_written_into_a_new_folder_and_replaced(tmp_path, write):
    path = tmp_path / "a" / "b.bin"
    atomic_write(path, b"old")
    atomic_write(path, write)
    assert path.read_bytes() == b"new" and os.listdir(path.parent) == ["b.bin"]
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=["full", "cancelled"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "b.bin"
    atomic_write(path, b"old")

    def fail(temporary):
        temporary.write_bytes(b"half")
        raise error

    with pytest.raises(type(error)):
        atomic_write(path, fail)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["b.bin"]
