"""Which ComfyUI there is on this machine: every usual place is looked at, and what holds none is said."""
import hashlib
import os
import re
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from .cache import cache_folder
from .environment import Environment
from .errors import LauncherError
from .releases import commit_written_down
from .requirements import CHECKOUT, PIP_HOST, PIP_HOST_NEEDS, PIP_NAME, PIP_VERSION, Layer, checkout_host_layer

PIP_PYTHONS = ((3, 10), (3, 13))  # its metadata: >=3.10,<3.13
PARTS = ("main.py", "nodes.py", "comfy", "requirements.txt")  # of a checkout
PATIENCE = 10  # seconds to decide whether GitHub can be reached


@dataclass(frozen=True)
class Host:
    """One ComfyUI: a checkout with `main.py` at `root`, or (`root` is None) the pip-installable fork of June 2024."""

    version: str
    root: Path | None
    found_as: str
    number: int = 1  # among those of the same version

    @property
    def id(self) -> str:
        """Short name for reports and test ids: `comfyui-0.3.64`, `comfyui-0.3.64_2` for a second of that version, `pip-0.0.1`."""
        name = f"{'pip' if self.root is None else 'comfyui'}-{self.version}"
        return f"{name}_{self.number}" if self.number > 1 else name

    @property
    def environment_name(self) -> str:
        """The name of its own environment: the same as long as it stays in its folder, whatever is updated there."""
        if self.root is None:
            return PIP_NAME
        return f"{self.root.name}-{hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:8]}"

    @property
    def layers(self) -> tuple[Layer, ...]:
        """What must be installed before it starts."""
        if self.root is None:
            return PIP_HOST_NEEDS, PIP_HOST
        return (checkout_host_layer(self.root, self.environment_name),)

    @cached_property
    def commit(self) -> str | None:
        """Which commit of ComfyUI it is, where that is known."""
        if self.root is None:
            return None
        if written := commit_written_down(self.root):
            return written
        if not (self.root / ".git").exists():
            return None
        try:
            done = subprocess.run(["git", "-C", str(self.root), "rev-parse", "HEAD"], capture_output=True, text=True)
        except OSError:  # there is no git
            return None
        return done.stdout.strip() or None

    def environment(self, shared: Environment) -> Environment:
        """Return its own environment on top of `shared`; `shared` itself where none was made for it."""
        own = shared.of_host(self.environment_name)
        return own if own.python.is_file() else shared

    def __str__(self):
        return f"{self.id} ({self.found_as})"


@dataclass(frozen=True)
class HostSearch:
    """The hosts that were found, the newest first, and a sentence for each place that held none or half of one."""

    found: tuple[Host, ...]
    missing: tuple[str, ...]
    preferred: Host | None = None  # of the first place that holds one, which is what an artist means who names none


def pip_host() -> Host:
    """Return the pip host, whether or not it is installed yet."""
    return Host(PIP_VERSION, None, "the pip package")


def pip_host_is_installed(environment: Environment = Environment(Path(sys.prefix))) -> bool:
    """Say whether an environment has the pip host."""
    return (environment.of_host(PIP_NAME).packages / f"comfyui-{PIP_VERSION}.dist-info").is_dir()


def pip_host_is_possible() -> bool:
    """Say whether the running Python is one that the pip host supports."""
    return PIP_PYTHONS[0] <= sys.version_info[:2] < PIP_PYTHONS[1]


def find_checkouts(chosen: Path | None = None) -> HostSearch:
    """Look for ComfyUI checkouts: `chosen` alone if given, else in every usual place.

    Raises LauncherError if `chosen` holds none.
    """
    if chosen is not None:
        host = read_checkout(chosen.expanduser(), "given with --host")
        if host is None:
            raise LauncherError(f"--host {chosen} is not a ComfyUI: {what_is_wrong(chosen.expanduser())}.")
        return HostSearch((host,), (), host)
    in_order, missing = {}, []
    for place, folders, none in _places():
        if not folders:
            missing.append(f"{place}: {none}")
        for found_as, folder in folders:
            if host := read_checkout(folder, found_as):
                in_order.setdefault(folder.resolve(), host)
            else:
                missing.append(f"{place}: {what_is_wrong(folder)}")
    found: list[Host] = []
    for host in sorted(in_order.values(), key=lambda host: version_key(host.version), reverse=True):
        found.append(replace(host, number=1 + sum(other.version == host.version for other in found)))
    first = next(iter(in_order), None)
    preferred = next((host for host in found if host.root.resolve() == first), None)
    return HostSearch(tuple(found), tuple(missing), preferred)


def _places():
    """Yield each usual place, the folders to look at there, each with how to call it, and what to say where there is none.

    The order is that of preference.
    """
    around = Path(os.path.abspath(CHECKOUT)).parent
    place = "the ComfyUI this pack is installed in"
    own = [(place, around.parent)] if around.name == "custom_nodes" else []
    yield place, own, "the pack does not lie in a custom_nodes folder"
    entries = [entry.strip() for entry in os.environ.get("COMFYUI_PATH", "").split(os.pathsep)]
    named = [(f"$COMFYUI_PATH, {entry}", Path(entry).expanduser()) for entry in entries if entry]
    yield "$COMFYUI_PATH", named, "the variable is not set"
    workspace = sorted((Path.home() / "comfy").glob("ComfyUI*"), key=lambda folder: version_key(folder.name))
    usual = [(f"~/comfy/{folder.name}", folder) for folder in workspace if not folder.is_file()]
    yield "~/comfy/ComfyUI*", usual, "no such folder"
    folders = sorted(cache_folder().glob("ComfyUI-*"), key=lambda folder: version_key(folder.name), reverse=True)
    downloaded = [("downloaded by quickstart", folder) for folder in folders if folder.is_dir()]
    yield "a ComfyUI that quickstart downloaded", downloaded, "nothing was downloaded"


def version_key(version: str) -> tuple[int, ...]:
    """Return what versions are compared by; what has no number is older than everything."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def read_checkout(root: Path, found_as: str) -> Host | None:
    """Return the ComfyUI at `root`, or None if there is none, or half of one."""
    root = root.absolute()  # its process starts in another folder
    if what_is_wrong(root):
        return None
    for file, pattern in (("comfyui_version.py", r"__version__\s*=\s*[\"']([^\"']+)"), ("pyproject.toml", r"(?m)^version\s*=\s*[\"']([^\"']+)")):
        path = root / file
        if path.is_file() and (version := re.search(pattern, path.read_text(encoding="utf-8", errors="replace"))):
            return Host(version[1], root, found_as)
    return Host("unknown", root, found_as)


def what_is_wrong(root: Path) -> str:
    """Say why there is no ComfyUI at `root`; empty if there is one."""
    if not root.is_dir():
        return f"{root} is {'a link that leads nowhere' if root.is_symlink() and not root.exists() else 'no folder'}"
    missing = [part for part in PARTS if not (root / part).exists()]
    if not missing:
        return ""
    is_one = f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    return f"{root} is {'only a part of a ComfyUI' if len(missing) < len(PARTS) else 'no ComfyUI'}: {is_one}"


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
