"""A running host: started on a free port with its own base directory, watched until it answers, stopped with all its children.

It never outlives its owner: `guard` stands between the two.
"""
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from . import guard
from .base_directory import BaseDirectory
from .environment import Environment
from .errors import LauncherError
from .hosts import Host

PACK_NAME = "ID-EA"
START_PATIENCE = 300  # seconds; the first start on a cold disk reads gigabytes of libraries
COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ERROR = re.compile(r"[\w.]*(Error|Exception): .+")  # the last line of a Python error
NOTHING_INSTALLED = ("\nNothing was installed for this ComfyUI yet: python quickstart.py test installs what each ComfyUI "
                     "that it finds asks for.")


class HostProcess:
    """A ComfyUI server process. Use it in a `with` statement: it starts on entry and is surely stopped on exit."""

    def __init__(self, host: Host, base: BaseDirectory, environment: Environment | None = None,
                 variables: dict[str, str] | None = None, cpu: bool = True, port: int | None = None, log: Path | None = None,
                 options: Sequence[str] = ()):
        """Prepare; nothing is started yet.

        Args:
            environment: the shared one; default: that of the running Python.
            variables: of the process; default: this process's own.
            options: more of the host's own, such as --cache-none.
        """
        shared = environment or Environment(Path(sys.prefix))
        self.host, self.base = host, base
        self._environment = host.environment(shared)
        self._has_its_own = self._environment != shared
        self.variables, self.cpu, self.options = variables, cpu, tuple(options)
        self.port = port or free_port()
        self.log = log or base.root / "host.log"
        self._guard: subprocess.Popen | None = None
        self._process_id = 0

    @property
    def python(self) -> Path:
        """The interpreter it runs on."""
        return self._environment.python

    @property
    def address(self) -> str:
        """Where the server listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def process_id(self) -> int:
        """The server's process id; only while it runs."""
        return self._process_id

    def command(self) -> list[str]:
        """Return the command line for this host."""
        shared = ["--port", str(self.port), "--disable-auto-launch", *(["--cpu"] if self.cpu else []), *self.options]
        if self.host.root is None:
            return [str(self.python), "-m", "comfy.cmd.main", "--cwd", str(self.base.root), "--disable-known-models", *shared]
        options = ["--base-directory", str(self.base.root)]
        if "--database-url" in (self.host.root / "comfy" / "cli_args.py").read_text(encoding="utf-8"):
            options += ["--database-url", "sqlite:///" + (self.base.root / "user" / "comfyui.db").as_posix()]  # not in the artist's folder
        return [str(self.python), str(self.host.root / "main.py"), *options, *shared]

    def process_variables(self) -> dict[str, str]:
        """Return the environment variables the process starts with; no host may ask a model hub."""
        variables = dict(self.variables or os.environ)
        variables |= {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        if self.host.root is None:
            variables = {name: value for name, value in variables.items() if not name.startswith("COMFYUI_")}  # it takes them for options
            hub = self.base.root / "models" / "huggingface"  # it lists this folder at start and fails if there is none
            hub.mkdir(parents=True, exist_ok=True)
            variables |= {"HF_HUB_CACHE": str(hub)}
        if self._has_its_own:  # what a node pack starts by name, pip for one, is that of the same environment
            path = os.pathsep.join([str(self.python.parent), variables.get("PATH", "")])
            variables |= {"VIRTUAL_ENV": str(self._environment.folder), "PATH": path}
        return variables

    def __enter__(self) -> "HostProcess":
        self.start()
        return self

    def __exit__(self, *exception):
        self.stop()

    def start(self, patience: float = START_PATIENCE):
        """Start the process and return when it answers. Raises LauncherError with the log's path and its last lines."""
        own_group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if sys.platform == "win32" else {"start_new_session": True}
        command = [str(self.python), "-I", "-S", str(Path(guard.__file__).absolute()), *self.command()]
        with open(self.log, "wb") as log:
            self._guard = subprocess.Popen(command, cwd=self.base.root, env=self.process_variables(),
                                           stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, **own_group)
        try:
            with self._guard.stdout as said:
                self._process_id = int(said.readline() or 0)
            self._wait_until_it_answers(patience)
        except BaseException:
            self.stop()
            raise

    def _wait_until_it_answers(self, patience: float):
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if self._guard.poll() is not None:
                error = self.last_error()
                raise LauncherError(f"{self.host.id} stopped while starting (exit code {self._guard.returncode})"
                                    f"{error and ': ' + error}\nIts log is {self.log}; it ends with\n{self.last_lines()}"
                                    f"{'' if self._has_its_own else NOTHING_INSTALLED}")
            try:
                with urllib.request.urlopen(self.address + "/queue", timeout=5) as answer:
                    answer.read()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise LauncherError(f"{self.host.id} did not answer within {patience:.0f} seconds. "
                            f"Its log is {self.log}; it ends with\n{self.last_lines()}")

    def is_alive(self) -> bool:
        """Say whether the process runs."""
        return self._guard is not None and self._guard.poll() is None

    def log_text(self) -> str:
        """Return all the host has written so far, without the colours."""
        return COLOURS.sub("", self.log.read_text(encoding="utf-8", errors="replace"))

    def last_error(self) -> str:
        """Return the last error in the log, such as the name of a package that is missing; empty if there is none."""
        return next((found[0] for line in reversed(self.log_text().splitlines()) if (found := ERROR.search(line))), "")

    def last_lines(self, count: int = 15) -> str:
        """Return the end of the log, indented."""
        return "\n".join("    " + line for line in self.log_text().splitlines()[-count:])

    def stop(self):
        """End the process and every process it started. Does nothing if it does not run."""
        if self._guard is None:
            return
        # A group outlives its first process; without groups, the id of a process that has ended may be another's by now.
        if self._guard.poll() is None or sys.platform != "win32":
            guard.end_tree(self._guard.pid, forcibly=False)
        try:
            self._guard.wait(timeout=10)
        except subprocess.TimeoutExpired:
            pass
        if self._guard.poll() is None or sys.platform != "win32":
            guard.end_tree(self._guard.pid, forcibly=True)
        self._guard.wait(timeout=30)
        self._guard.stdin.close()
        self._guard = None


def free_port(preferred: int = 0) -> int:
    """Return a port nobody listens on: `preferred` if it is free, else any."""
    for port in (preferred, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise LauncherError("No free network port could be found on this machine.")
