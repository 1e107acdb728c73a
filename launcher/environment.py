"""The virtual environment: made once outside the checkout, filled layer by layer, found again in milliseconds."""
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from .cache import cache_folder, locked
from .errors import LauncherError
from .requirements import TORCH, Layer, pack_layers

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

    def holds(self, layer: Layer) -> bool:
        """Say whether a layer was installed to its end; its marker is the last thing an install writes."""
        return (self.folder / "layers" / layer.key).is_file()

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


def _install(environment: Environment, layer: Layer, say):
    log = environment.folder / "install.log"
    say(f"Installing {layer.name}: {_shortened(layer.lines)}")
    if layer.instead_of:
        _pip(environment, ["uninstall", "--yes", layer.instead_of], log, say)
    options = [] if layer.with_dependencies else ["--no-deps", "--force-reinstall"]
    options += ["--upgrade", "--target", str(environment.folder / layer.folder)] if layer.folder else []
    # Torch's lines go along with every layer: pip forgets what earlier commands asked for, and would move what transformers needs.
    beside = TORCH.lines if layer.with_dependencies and layer != TORCH else ()
    for attempt in range(TRIES):
        if _pip(environment, ["install", "--progress-bar", "off", *options, *layer.lines, *beside], log, say) == 0:
            break
        say(f"  pip could not install {layer.name}" + (", trying once more." if attempt + 1 < TRIES else "."))
    else:
        raise LauncherError(f"pip could not install {layer.name}; its messages are in {log}. The last of them: {_last_error(log)} "
                            "Check the network and the free disk space, then run the same command again: it goes on from here.")
    (environment.folder / "layers" / layer.key).write_text("\n".join(layer.lines), encoding="utf-8")


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
