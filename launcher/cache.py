"""The per-user cache folder: environments, demo models, a downloaded ComfyUI, the quickstart's own base directory."""
import os
import sys
from contextlib import contextmanager
from pathlib import Path

NAME = "id-ea"


def cache_folder() -> Path:
    """Return the folder that outlives a run: `$IDEA_CACHE` itself, else `id-ea` in the system's place for caches."""
    if chosen := os.environ.get("IDEA_CACHE"):
        return Path(chosen).expanduser().absolute()
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / NAME
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / NAME
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / NAME


def quickstart_folder() -> Path:
    """Return the folder below which quickstart gives each host a base directory, laid out like a ComfyUI folder.

    All that quickstart knows of people lies there: photographs, identities, kept trainings, pictures.
    `idea-engine forget` looks there too.
    """
    return cache_folder() / "quickstart"


@contextmanager
def locked(path: Path, waiting=lambda: None):
    """Hold an exclusive lock on the file `path`; call `waiting()` once if somebody else holds it.

    The operating system frees the lock when its owner dies, so a killed run never blocks the next one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        if not _try_lock(file):
            waiting()
            _lock(file)
        try:
            yield
        finally:
            _unlock(file)


if sys.platform == "win32":
    import msvcrt
    import time

    def _try_lock(file) -> bool:
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _lock(file):
        while not _try_lock(file):  # LK_LOCK gives up after ten seconds, an install takes minutes
            time.sleep(0.5)

    def _unlock(file):
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def _try_lock(file) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _lock(file):
        fcntl.flock(file, fcntl.LOCK_EX)

    def _unlock(file):
        fcntl.flock(file, fcntl.LOCK_UN)
