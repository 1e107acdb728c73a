"""Which ComfyUI there is on this machine: found in a fixed order, or fetched."""
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

from .cache import cache_folder, locked
from .errors import LauncherError
from .requirements import CHECKOUT, PIP_HOST, PIP_HOST_NEEDS, Layer, checkout_host_layer

PIP_VERSION = "0.0.1"
PIP_PYTHONS = ((3, 10), (3, 13))  # its metadata: >=3.10,<3.13
REPOSITORY = "https://github.com/comfyanonymous/ComfyUI"
PATIENCE = 10  # seconds to decide whether GitHub can be reached


@dataclass(frozen=True)
class Host:
    """One ComfyUI: a checkout with `main.py` at `root`, or (`root` is None) the pip-installable fork of June 2024."""

    version: str
    root: Path | None
    found_as: str

    @property
    def id(self) -> str:
        """Short name for reports and test ids, such as `comfyui-0.3.64` or `pip-0.0.1`."""
        return f"{'pip' if self.root is None else 'comfyui'}-{self.version}"

    @property
    def layers(self) -> tuple[Layer, ...]:
        """What must be installed before it starts."""
        return (PIP_HOST_NEEDS, PIP_HOST) if self.root is None else (checkout_host_layer(self.root),)

    def __str__(self):
        return f"{self.id} ({self.found_as})"


@dataclass(frozen=True)
class HostSearch:
    """The hosts that were found, in order of preference, and a sentence for each place that held none."""

    found: tuple[Host, ...]
    missing: tuple[str, ...]


def pip_host() -> Host:
    """Return the pip host, whether or not it is installed yet."""
    return Host(PIP_VERSION, None, "the pip package")


def pip_host_folder(python: Path) -> Path:
    """Return where the environment of `python` keeps the pip host."""
    return python.parent.parent / PIP_HOST.folder


def pip_host_is_installed(python: Path = Path(sys.executable)) -> bool:
    """Say whether the environment of `python` has the pip host."""
    return (pip_host_folder(python) / f"comfyui-{PIP_VERSION}.dist-info").is_dir()


def pip_host_is_possible() -> bool:
    """Say whether the running Python is one that the pip host supports."""
    return PIP_PYTHONS[0] <= sys.version_info[:2] < PIP_PYTHONS[1]


def find_checkouts(chosen: Path | None = None) -> HostSearch:
    """Look for ComfyUI checkouts: `chosen` alone if given, else every usual place in order.

    Raises LauncherError if `chosen` holds none.
    """
    if chosen is not None:
        host = read_checkout(chosen.expanduser(), "given with --host")
        if host is None:
            raise LauncherError(f"--host {chosen} is not a ComfyUI: a folder with main.py, nodes.py and the package comfy is expected.")
        return HostSearch((host,), ())
    around = Path(os.path.abspath(CHECKOUT)).parent
    from_variable = os.environ.get("COMFYUI_PATH")
    places = [
        ("the ComfyUI this pack is installed in", around.parent if around.name == "custom_nodes" else None, "the pack does not lie in a custom_nodes folder"),
        ("$COMFYUI_PATH", Path(from_variable).expanduser() if from_variable else None, "the variable is not set"),
        ("~/comfy/ComfyUI", Path.home() / "comfy" / "ComfyUI", ""),
        ("a ComfyUI that quickstart downloaded", fetched_folder(), ""),
    ]
    found, missing = {}, []
    for place, root, why_not in places:
        host = read_checkout(root, place) if root else None
        if host is None:
            missing.append(f"{place}: {why_not or 'no ComfyUI there'}")
        else:
            found.setdefault(host.root.resolve(), host)
    return HostSearch(tuple(found.values()), tuple(missing))


def read_checkout(root: Path, found_as: str) -> Host | None:
    """Return the ComfyUI at `root`, or None if there is none."""
    if not all((root / part).exists() for part in ("main.py", "nodes.py", "comfy")):
        return None
    for file, pattern in (("comfyui_version.py", r"__version__\s*=\s*[\"']([^\"']+)"), ("pyproject.toml", r"(?m)^version\s*=\s*[\"']([^\"']+)")):
        path = root / file
        if path.is_file() and (version := re.search(pattern, path.read_text(encoding="utf-8"))):
            return Host(version[1], root, found_as)
    return Host("unknown", root, found_as)


def fetched_folder() -> Path:
    """Return where a downloaded ComfyUI is kept."""
    return cache_folder() / "ComfyUI"


def github_is_reachable() -> bool:
    """Try to connect; decided within PATIENCE seconds, even where name resolution hangs."""
    reached = threading.Event()

    def connect():
        try:
            socket.create_connection(("github.com", 443), timeout=PATIENCE).close()
            reached.set()
        except OSError:
            pass

    attempt = threading.Thread(target=connect, daemon=True)
    attempt.start()
    attempt.join(PATIENCE)
    return reached.is_set()


def fetch_checkout(say=print) -> Host:
    """Download a current ComfyUI into the cache, with git or else as an archive. Raises LauncherError."""
    folder = fetched_folder()
    partial = folder.with_name("ComfyUI.partial")
    with locked(folder.with_name("ComfyUI.lock")):
        if read_checkout(folder, "") is None:
            say(f"Downloading ComfyUI to {folder}")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)
            try:
                _clone(partial) if shutil.which("git") else _unpack_archive(partial)
            except (OSError, subprocess.SubprocessError, zipfile.BadZipFile) as error:
                raise LauncherError(f"ComfyUI could not be downloaded ({error}). Give a ComfyUI you have with --host FOLDER.") from error
            partial.rename(folder)
    host = read_checkout(folder, "downloaded by quickstart")
    if host is None:
        raise LauncherError(f"The download in {folder} is not a ComfyUI; delete that folder and run this again.")
    return host


def _clone(folder: Path):
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", REPOSITORY, str(folder)], check=True, timeout=600)


def _unpack_archive(folder: Path):
    archive = folder.with_suffix(".zip")
    archive.parent.mkdir(parents=True, exist_ok=True)
    with urllib.request.urlopen(f"{REPOSITORY}/archive/refs/heads/master.zip", timeout=60) as source, open(archive, "wb") as target:
        shutil.copyfileobj(source, target)
    unpacked = folder.with_name("ComfyUI.unpacked")
    shutil.rmtree(unpacked, ignore_errors=True)
    with zipfile.ZipFile(archive) as file:
        file.extractall(unpacked)
    (inner,) = unpacked.iterdir()  # the archive holds one folder, named after the branch
    inner.rename(folder)
    unpacked.rmdir()
    archive.unlink()
