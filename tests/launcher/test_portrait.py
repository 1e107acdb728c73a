"""What the quickstart finds after its run."""
import time

from launcher.base_directory import BaseDirectory
from launcher.portrait import _identity_file


def test_the_identity_of_this_run_is_found_beside_old_ones_and_links_to_what_is_gone(tmp_path):
    base = BaseDirectory.make(tmp_path)
    folder = base.root / "models" / "idea"
    folder.mkdir(parents=True, exist_ok=True)
    assert _identity_file(base, time.time()) is None
    new = folder / "anna.safetensors"
    new.write_bytes(b"")
    (folder / "ben.safetensors").symlink_to(tmp_path / "gone.safetensors")
    assert _identity_file(base, time.time()) == str(new)
    assert _identity_file(base, time.time() + 60) is None
