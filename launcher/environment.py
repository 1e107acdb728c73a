"""The virtual environment: made once outside the checkout, filled layer by layer, found again in milliseconds.

Each host has an environment of its own on top of it. What the shared one holds is found there too; what a host wants
in another version is installed beside it, so that no host changes what another, or the pack, runs with.
"""
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from .cache import cache_folder, locked
from .errors import LauncherError
from .requirements import SHARED, TORCH, Layer, distribution_name, pack_layers

PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input")
TRIES = 2  # a dropped connection in the middle of two gigabytes is common; a second try takes up what pip has cached


@dataclass(frozen=True)
class Environment:
    """A virtual environment and the layers it holds."""

    folder: Path

    @property
    def python(self) -> Path:
        """The interpreter of the environment."""
        return self.folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")

    @property
    def packages(self) -> Path:
        """The folder that pip installs into."""
        scheme = "nt" if sys.platform == "win32" else "posix_prefix"
        return Path(sysconfig.get_path("purelib", scheme, {"base": str(self.folder), "platbase": str(self.folder)}))

    def of_host(self, name: str) -> "Environment":
        """Return the environment of a host, on top of this one."""
        return Environment(self.folder / "hosts" / name)

    def place(self, layer: Layer) -> "Environment":
        """Return the environment that a layer belongs into."""
        return self.of_host(layer.host) if layer.host else self

    def holds(self, layer: Layer) -> bool:
        """Say whether a layer was installed to its end: its marker is the last thing an install writes.

        A host's layer only counts as long as its process would still import what the marker says.
        """
        marker = self.place(layer).folder / "layers" / layer.key
        return marker.is_file() and (not layer.host or marker.read_text(encoding="utf-8") == self.versions(layer))

    def versions(self, layer: Layer) -> str:
        """Return the version of each distribution a layer names that a process would import, a line each."""
        searched = [str(folder) for folder in dict.fromkeys((self.place(layer).packages, self.packages))]
        names = sorted(set(filter(None, map(distribution_name, layer.lines))))
        found = {name: next(iter(metadata.distributions(name=name, path=searched)), None) for name in names}
        return "".join(f"{name}=={distribution.version}\n" for name, distribution in found.items() if distribution)

    def variables(self) -> dict[str, str]:
        """Return the process environment of a command that runs inside, as `activate` would set it."""
        variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "PYTHONPATH")}
        variables["VIRTUAL_ENV"] = str(self.folder)
        variables["PATH"] = os.pathsep.join([str(self.python.parent), variables.get("PATH", "")])
        return variables


def environment_key(layers: tuple[Layer, ...]) -> str:
    """Return the folder name of the environment whose foundation is these layers, for the running Python."""
    content = hashlib.sha256("\n".join(layer.key for layer in layers).encode()).hexdigest()[:12]
    return f"python{sys.version_info.major}.{sys.version_info.minor}-{content}"


def prepare(extra: tuple[Layer, ...] = (), say=print) -> Environment:
    """Return an environment that holds the pack's requirements and `extra`; install what is missing.

    An install that was interrupted is taken up again. Raises LauncherError with the path of pip's log.
    """
    foundation = pack_layers()
    environment = Environment(cache_folder() / "environments" / environment_key(foundation))
    wanted = (*foundation, *extra)
    if all(environment.holds(layer) for layer in wanted):
        return environment
    lock = environment.folder.with_name(environment.folder.name + ".lock")
    with locked(lock, waiting=lambda: say("Another run is preparing the environment; waiting for it.")):
        _create(environment, say)
        for layer in wanted:
            if not environment.holds(layer):
                _install(environment, layer, say)
    return environment


def _create(environment: Environment, say):
    made = environment.folder / "layers"
    if made.is_dir():
        return
    shutil.rmtree(environment.folder, ignore_errors=True)  # a half-made one has no folder `layers`
    say(f"Making a Python environment in {environment.folder} (once; a few minutes, some gigabytes).")
    done = subprocess.run([sys.executable, "-m", "venv", str(environment.folder)], capture_output=True, text=True)
    if done.returncode:
        raise LauncherError("Python could not make a virtual environment. On Debian and Ubuntu install the package "
                            f"python3-venv, then run this again. Python said: {(done.stderr or done.stdout).strip()[-400:]}")
    made.mkdir()


def _create_of_host(environment: Environment, own: Environment):
    """Make a host's environment: empty, and everything of the shared one is found from it."""
    made = own.folder / "layers"
    if made.is_dir():
        return
    shutil.rmtree(own.folder, ignore_errors=True)
    make = [str(environment.python), "-m", "venv", "--without-pip", str(own.folder)]
    done = subprocess.run(make, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-400:]
        raise LauncherError(f"Python could not make a virtual environment in {own.folder}. It said: {said}")
    # Python runs a line that starts with 'import' as it starts; `ascii`, for some read the file in the system's encoding.
    line = f"import site; site.addsitedir({ascii(str(environment.packages))})\n"
    (own.packages / "shared.pth").write_text(line, encoding="ascii")
    made.mkdir()


def _install(environment: Environment, layer: Layer, say):
    log, place = environment.folder / "install.log", environment.place(layer)
    name = layer.name + (f" of {layer.host}" if layer.host else "")
    say(f"Installing {name}: {_shortened(layer.lines)}")
    if layer.host:
        _create_of_host(environment, place)
    if layer.instead_of:
        _pip(place, ["uninstall", "--yes", layer.instead_of], log, say)
    options = [] if layer.with_dependencies else ["--no-deps", "--force-reinstall"]
    lines = [word for line in layer.lines for word in (shlex.split(line) if line.startswith("-") else [line])]
    lines += _beside(environment, layer)
    for attempt in range(TRIES):
        if _pip(place, ["install", "--progress-bar", "off", *options, *lines], log, say) == 0:
            break
        say(f"  pip could not install {name}" + (", trying once more." if attempt + 1 < TRIES else "."))
    else:
        raise LauncherError(f"pip could not install {name}; its messages are in {log}. The last of them: {_last_error(log)} "
                            "Check the network and the free disk space, then run the same command again: it goes on from here.")
    marker = place.folder / "layers" / layer.key
    marker.write_text(environment.versions(layer) if layer.host else "\n".join(layer.lines), encoding="utf-8")


def _beside(environment: Environment, layer: Layer) -> tuple[str, ...]:
    """Return what goes along with a layer's lines: pip forgets what earlier commands asked for, and would move it."""
    if not layer.with_dependencies or layer == TORCH:
        return ()
    if not layer.host:
        return TORCH.lines
    shared = (found for name in SHARED for found in metadata.distributions(name=name, path=[str(environment.packages)]))
    return tuple(f"{found.metadata['Name']}=={found.version}" for found in shared)


def _pip(environment: Environment, arguments: list[str], log: Path, say) -> int:
    """Run pip, keep all it says in the log, and pass on a line for every download or every 20 seconds of silence."""
    started = spoke = time.monotonic()
    with open(log, "a", encoding="utf-8") as record:
        record.write(f"\n$ pip {' '.join(arguments)}\n")
        process = subprocess.Popen([str(environment.python), *PIP, *arguments], env=environment.variables(), text=True,
                                   encoding="utf-8", errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for line in process.stdout:
            record.write(line)
            large = re.search(r"Downloading (\S+) \((\d+(?:\.\d+)? [MG]B)\)", line)
            if large or line.startswith("Installing collected") or time.monotonic() - spoke > 20:
                spoke = time.monotonic()
                what = f"downloading {large[1].rsplit('/', 1)[-1].split('-')[0]}, {large[2]}" if large else line.strip()[:60]
                say(f"  {spoke - started:4.0f} s  {what}")
        return process.wait()


def _last_error(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if "ERROR" in line), "(none)")


def _shortened(lines: tuple[str, ...]) -> str:
    return ", ".join(lines[:6]) + (f" and {len(lines) - 6} more" if len(lines) > 6 else "")
