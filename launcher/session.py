"""A ComfyUI for a while: one that is found here, on a base directory of its own with this pack, running until its `with` statement ends."""
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .base_directory import BaseDirectory
from .client import Client
from .environment import Environment
from .errors import LauncherError
from .hosts import Host, find_checkouts, pip_host, pip_host_is_installed
from .requirements import CHECKOUT
from .server import PACK_NAME, HostProcess

THIS_PACK = {PACK_NAME: CHECKOUT}


@dataclass(frozen=True)
class Session:
    """What runs, and where its files are."""

    process: HostProcess
    base: BaseDirectory

    @property
    def client(self) -> Client:
        """A new connection to it."""
        return Client(self.process.address)


def any_host(name: str | None = None, pip: bool = True) -> Host:
    """Return the newest ComfyUI that is found, or the one whose id is `name`; `pip`: the pip host counts too, after all others.

    Raises LauncherError if there is none.
    """
    found = [*find_checkouts().found, *([pip_host()] if pip and pip_host_is_installed() else [])]
    if not found:
        raise LauncherError("No ComfyUI was found. Run python quickstart.py once: it gets one.")
    chosen = next((host for host in found if name in (None, host.id)), None)
    if chosen is None:
        raise LauncherError(f"There is no ComfyUI called {name}. Found: {', '.join(host.id for host in found)}.")
    return chosen


@contextmanager
def session(host: Host, folder: Path | None = None, packs: Mapping[str, Path] = THIS_PACK, prepare: Callable[[BaseDirectory], object] = lambda base: None,
            environment: Environment | None = None, variables: dict[str, str] | None = None, cpu: bool = True,
            options: Sequence[str] = ()) -> Iterator[Session]:
    """Start a host and stop it at the end.

    Args:
        folder: of the base directory; default: one that is deleted at the end.
        packs: name → source of the node packs.
        prepare: is called with the base directory before the start.
        environment, variables, cpu, options: see HostProcess.
    """
    with tempfile.TemporaryDirectory(prefix="idea-session-") as temporary:
        base = BaseDirectory.make(folder or Path(temporary))
        for name, source in packs.items():
            base.add_node_pack(source, name)
        prepare(base)
        with HostProcess(host, base, environment, variables, cpu, options=options) as process:
            yield Session(process, base)
