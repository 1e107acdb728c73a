"""A cache that several hosts share: somebody else may delete, write and trim at any moment."""
import os
import subprocess
import sys

from idea_engine.files.cache_folder import trim, used

_HOST = """
import os, random, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from idea_engine.files.atomic_write import atomic_write
from idea_engine.files.cache_folder import trim, used
folder, seed = Path(sys.argv[2]), int(sys.argv[3])
random.seed(seed)
calls = 0
end = time.monotonic() + 3
while time.monotonic() < end:
    path = folder / f"{random.randrange(40)}.safetensors"
    kind = random.random()
    if kind < 0.5:
        atomic_write(path, bytes(random.randrange(20_000)))
    elif kind < 0.8:
        trim(folder, random.choice((0, 50_000, 200_000)))
    else:
        used(path)
    calls += 1
print(calls)
"""


def test_what_was_used_longest_ago_goes_first(tmp_path):
    for number in range(5):
        (tmp_path / f"{number}.safetensors").write_bytes(bytes(100))
        os.utime(tmp_path / f"{number}.safetensors", (1000 + number, 1000 + number))
    used(tmp_path / "0.safetensors")
    trim(tmp_path, 250)
    assert sorted(os.listdir(tmp_path)) == ["0.safetensors", "4.safetensors"]
    used(tmp_path / "1.safetensors")  # gone: not made anew
    trim(tmp_path / "nowhere", 0)
    assert sorted(os.listdir(tmp_path)) == ["0.safetensors", "4.safetensors"]


def test_several_hosts_share_one_cache(tmp_path):
    root = os.path.dirname(os.path.dirname(sys.modules["idea_engine"].__file__))
    hosts = [subprocess.Popen([sys.executable, "-c", _HOST, root, str(tmp_path), str(seed)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for seed in range(4)]
    told = [host.communicate(timeout=120) for host in hosts]
    assert [said[1] for said in told] == [""] * 4 and sum(int(said[0]) for said in told) > 500
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_a_cached_training_that_vanishes_is_none(tmp_path, monkeypatch):
    """It was there when it was looked for, and is gone when it is read."""
    from pathlib import Path

    import pytest

    from idea_engine.errors import IdentityFileError
    from idea_engine.identity.file import load_identity

    path = tmp_path / "a.safetensors"
    path.write_bytes(bytes(100))
    stat = Path.stat

    def gone(self, **options):
        if self == path and os.path.lexists(path):
            found = stat(self, **options)
            os.unlink(path)
            return found
        return stat(self, **options)

    monkeypatch.setattr(Path, "stat", gone)
    with pytest.raises(IdentityFileError):
        load_identity(path)
