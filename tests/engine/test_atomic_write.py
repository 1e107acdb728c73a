"""A file is replaced wholly or not at all, with the rights that the umask gives; killed writers leave nothing for long."""
import os
import signal
import stat
import subprocess
import sys
import threading

import pytest

from idea_engine.files.atomic_write import atomic_write, sweep

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes and no kill")


@pytest.mark.parametrize("write", [b"new", lambda path: path.write_bytes(b"new")], ids=["bytes", "function"])
def test_a_file_is_written_into_a_new_folder_and_replaced(tmp_path, write):
    path = tmp_path / "a" / "b.bin"
    atomic_write(path, b"old")
    atomic_write(path, write)
    assert path.read_bytes() == b"new" and os.listdir(path.parent) == ["b.bin"]


@posix
@pytest.mark.parametrize("mask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_file_has_the_rights_that_the_umask_gives(tmp_path, mask, mode):
    from safetensors.torch import save_file
    from torch import zeros

    before = os.umask(mask)
    try:
        atomic_write(tmp_path / "bytes", b"new")
        atomic_write(tmp_path / "tensors", lambda path: save_file({"a": zeros(1)}, path))  # makes a file of its own
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("bytes", "tensors")] == [mode, mode]


@posix
def test_what_was_closed_to_others_stays_closed(tmp_path):
    path = tmp_path / "anna"
    atomic_write(path, b"old")
    path.chmod(0o600)
    atomic_write(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


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


@posix
def test_what_a_killed_writer_left_goes_with_the_next_save_of_anybody(tmp_path):
    script = (
        "import sys, time; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "from idea_engine.files.atomic_write import atomic_write\n"
        "def slow(path):\n"
        "    path.write_bytes(b'half of anna'); path.with_name('.a library writes so').write_bytes(b'more'); print('writing', flush=True); time.sleep(600)\n"
        "atomic_write(Path(sys.argv[1]), slow)\n"
    )
    root = os.path.dirname(os.path.dirname(sys.modules["idea_engine"].__file__))
    writer = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "anna.safetensors"), root], stdout=subprocess.PIPE)
    try:
        assert writer.stdout.readline() == b"writing\n"
        atomic_write(tmp_path / "ben", b"ben")
        assert len(os.listdir(tmp_path)) == 2 and not sweep(tmp_path)  # the writer lives, so its work is left alone
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert len(os.listdir(tmp_path)) == 2
    atomic_write(tmp_path / "ben", b"ben again")
    assert os.listdir(tmp_path) == ["ben"]


def test_nobody_sweeps_away_what_others_write(tmp_path):
    """Eight writers of one folder, each of whom tidies up at every save."""
    failed = []

    def write(number):
        try:
            for _ in range(40):
                atomic_write(tmp_path / f"{number % 3}", str(number).encode() * 1000)
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failed and sorted(os.listdir(tmp_path)) == ["0", "1", "2"]


def test_other_programs_hidden_files_stay(tmp_path):
    for name in (".anna-abcdefgh.tmp", ".anna-0123456789abcdef.idea-part", ".notes"):
        (tmp_path / name).write_bytes(b"not ours")
    sweep(tmp_path)
    assert len(os.listdir(tmp_path)) == 3


def test_the_longest_name_that_a_disk_takes_can_be_written(tmp_path):
    path = tmp_path / ("ä" * 120 + ".safetensors")
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"
