"""A running host: started on a free port with its own base directory, watched until it answers, stopped with all its children."""
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from .base_directory import BaseDirectory
from .errors import LauncherError
from .hosts import Host, pip_host_folder

PACK_NAME = "ID-EA"
START_PATIENCE = 300  # seconds; the first start on a cold disk reads gigabytes of libraries


class HostProcess:
    """A ComfyUI server process. Use it in a `with` statement: it starts on entry and is surely stopped on exit."""

    def __init__(self, host: Host, base: BaseDirectory, python: Path = Path(sys.executable), variables: dict[str, str] | None = None,
                 cpu: bool = True, port: int | None = None, log: Path | None = None):
        self.host, self.base = host, base
        self.python, self.variables, self.cpu = python, variables, cpu
        self.port = port or free_port()
        self.log = log or base.root / "host.log"
        self._process: subprocess.Popen | None = None

    @property
    def address(self) -> str:
        """Where the server listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def process_id(self) -> int:
        """The server's process id; only while it runs."""
        return self._process.pid

    def command(self) -> list[str]:
        """Return the command line for this host."""
        shared = ["--port", str(self.port), "--disable-auto-launch", *(["--cpu"] if self.cpu else [])]
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
            variables |= {"PYTHONPATH": str(pip_host_folder(self.python)), "HF_HUB_CACHE": str(hub)}
        return variables

    def __enter__(self) -> "HostProcess":
        self.start()
        return self

    def __exit__(self, *exception):
        self.stop()

    def start(self, patience: float = START_PATIENCE):
        """Start the process and return when it answers. Raises LauncherError with the log's path and its last lines."""
        own_group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if sys.platform == "win32" else {"start_new_session": True}
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(self.command(), cwd=self.base.root, env=self.process_variables(), stdin=subprocess.DEVNULL,
                                             stdout=log, stderr=subprocess.STDOUT, **own_group)
        try:
            self._wait_until_it_answers(patience)
        except BaseException:
            self.stop()
            raise

    def _wait_until_it_answers(self, patience: float):
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise LauncherError(f"{self.host.id} stopped while starting (exit code {self._process.returncode}); its log is {self.log}\n{self.last_lines()}")
            try:
                with urllib.request.urlopen(self.address + "/queue", timeout=5) as answer:
                    answer.read()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise LauncherError(f"{self.host.id} did not answer within {patience:.0f} seconds; its log is {self.log}\n{self.last_lines()}")

    def is_alive(self) -> bool:
        """Say whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def log_text(self) -> str:
        """Return all the host has written so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def last_lines(self, count: int = 15) -> str:
        """Return the end of the log, indented."""
        return "\n".join("    " + line for line in self.log_text().splitlines()[-count:])

    def stop(self):
        """End the process and every process it started. Does nothing if it does not run."""
        if self._process is None:
            return
        _end_tree(self._process, forcibly=False)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            pass
        _end_tree(self._process, forcibly=True)
        self._process.wait(timeout=30)
        self._process = None


def _end_tree(process: subprocess.Popen, forcibly: bool):
    if sys.platform == "win32":
        if process.poll() is None:  # a console-less process takes no polite signal, so the first call is forcible too
            subprocess.run(["taskkill", "/PID", str(process.pid), "/T", "/F"], capture_output=True)
        return
    try:
        os.killpg(process.pid, signal.SIGKILL if forcibly else signal.SIGTERM)
    except (ProcessLookupError, PermissionError):  # macOS answers 'not permitted' for a group of zombies
        pass


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
