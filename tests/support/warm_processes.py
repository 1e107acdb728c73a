"""Real processes of the command line that need not import PyTorch and diffusers again: forked from one process that has (not on Windows).

Importing takes ten times as long as most commands compute. Everything else is a process's own: its folder, environment, streams, signals, end.
"""
from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

AVAILABLE = "forkserver" in multiprocessing.get_all_start_methods()
_HEAVY = "heavy_imports"


class WarmProcess:
    """``python -m MODULE ARGUMENTS``, with as much of `subprocess.Popen` as the tests use."""

    def __init__(self, module: str, arguments: list[str], cwd: Path, env: dict[str, str]):
        context = _context(env)
        self._streams = [_empty_file() for _ in range(2)]
        self._process = context.Process(target=_become, args=(module, arguments, str(cwd), env, *map(str, self._streams)))
        self._process.start()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError(f"The command still runs after {timeout} s.")
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Both streams, when it has ended."""
        self.wait(timeout)
        said, complained = (path.read_text(encoding="utf-8") for path in self._streams)
        for path in self._streams:
            path.unlink()
        return said, complained

    def send_signal(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _context(env: dict[str, str]):
    """The process that the others are forked from runs, started in ``env``: how many threads PyTorch takes is settled when it is imported. Up to Python
    3.13 it finds what it should import along PYTHONPATH only, and is silent when it does not.
    """
    from multiprocessing import forkserver  # not on Windows

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_HEAVY])
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [env.get("PYTHONPATH")])])
    with patch.dict(os.environ, {**env, "PYTHONPATH": path}):
        forkserver.ensure_running()  # only the first time starts one
    return context


def _empty_file() -> Path:
    number, path = tempfile.mkstemp(prefix="idea-cli-")
    os.close(number)
    return Path(path)


def _become(module: str, arguments: list[str], cwd: str, env: dict[str, str], out: str, err: str) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for path, number in ((out, 1), (err, 2)):
        opened = os.open(path, os.O_WRONLY | os.O_TRUNC)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", buffering=1, closefd=False) for number in (1, 2))
    sys.path[:] = [*env.get("PYTHONPATH", "").split(os.pathsep), *sys.path]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
