"""What ComfyUI's registry ships: the tracked files without those of `.comfyignore`.

    python quickstart.py run python -m tools.archive ID-EA.zip
"""
import subprocess
import sys
import zipfile
from pathlib import Path

from launcher.errors import LauncherError
from launcher.requirements import CHECKOUT


def ignored(name: str, entries: list[str]) -> bool:
    """Whether a path (with forward slashes) is one of the entries, or lies in one that ends in a slash."""
    return any(name == entry or (entry.endswith("/") and name.startswith(entry)) for entry in entries)


def shipped_files(checkout: Path = CHECKOUT) -> list[str]:
    """Return the paths of the shipped files, with forward slashes. Raises LauncherError outside a git checkout."""
    entries = [line for line in (checkout / ".comfyignore").read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    listed = subprocess.run(["git", "-C", str(checkout), "ls-files", "-z"], capture_output=True)
    if listed.returncode:
        raise LauncherError("The archive is made of the files git tracks, and this folder is no git checkout.")
    names = listed.stdout.decode("utf-8").split("\0")
    return sorted(name for name in names if name and not ignored(name, entries) and (checkout / name).is_file())


def build(path: Path, checkout: Path = CHECKOUT) -> Path:
    """Write the archive, first under another name, and return its path."""
    part = path.with_name(path.name + ".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in shipped_files(checkout):
            archive.write(checkout / name, name)
    part.replace(path)
    return path


if __name__ == "__main__":
    print(build(Path(sys.argv[1])).stat().st_size, "bytes")
