"""Writing a file so that it is there wholly or not at all, and so that a killed process leaves nothing behind for long."""
from __future__ import annotations

import os
import re
import secrets
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Callable, Iterator

_ENDING = ".idea-part"
_PART = re.compile(r"\..*-[0-9a-f]{16}" + re.escape(_ENDING))
_LOCK, _CONTENT = "lock", "content"
_STEM_BYTES = 80  # of the final name, so that the hidden name is short enough wherever the final one is
_ATTEMPTS = 5  # to begin, while somebody else tidies up or deletes the folder


def atomic_write(path: Path, write: bytes | Callable[[Path], object]) -> None:
    """Write beside ``path``, then rename: an existing file is replaced wholly or left untouched.

    The folder is made when missing. The file's mode is the one that the umask gives, and never wider than that of the file it replaces. What
    killed processes have left in the folder is removed; what another process is writing at this moment is not.

    Args:
        write: the content; or a function that writes it to the path it is given, for what is too large to be held twice.

    Raises:
        OSError: disk full, no permission …, and whatever ``write`` raises; nothing is left behind.
    """
    path = Path(path)
    sweep(path.parent)
    with _part(path) as part:
        temporary = part / _CONTENT
        temporary.write_bytes(write) if isinstance(write, bytes) else write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        mode = (part / _LOCK).stat().st_mode & 0o777  # made by us with all rights, so what is left of them is the umask's
        with suppress(FileNotFoundError):
            mode &= path.stat().st_mode
        os.chmod(temporary, mode | 0o200 if sys.platform == "win32" else mode)
        os.replace(temporary, path)


def sweep(folder: Path) -> list[Path]:
    """Remove what killed processes have left of their writing in ``folder``; returns what was removed. Nobody is waited for."""
    removed = []
    with suppress(OSError):  # no such folder, or not ours to look into
        for part in [Path(entry.path) for entry in os.scandir(folder) if _PART.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)]:
            if _remove_if_left(part):
                removed.append(part)
    return removed


@contextmanager
def _part(path: Path) -> Iterator[Path]:
    """A hidden folder beside ``path`` that says by a lock that somebody is writing; the system lets go of what a killed process held."""
    part, lock = _begin(path)
    try:
        yield part
    finally:
        with suppress(OSError):
            _empty(part, lock)
        lock.close()


def _begin(path: Path) -> tuple[Path, BinaryIO]:
    stem = path.stem.encode(errors="surrogateescape")[:_STEM_BYTES].decode(errors="ignore")
    for attempt in range(_ATTEMPTS):
        part = path.parent / f".{stem}-{secrets.token_hex(8)}{_ENDING}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.mkdir(mode=0o700)
            lock = _opened(part / _LOCK)
        except FileNotFoundError:  # the folder was deleted meanwhile
            if attempt + 1 == _ATTEMPTS:
                raise
            continue
        # Somebody who tidies up may have been quicker than our lock.
        if _try_lock(lock) is not False and (part / _LOCK).is_file():
            return part, lock
        lock.close()
    raise FileNotFoundError(2, "the folder is deleted again and again", str(path.parent))


def _remove_if_left(part: Path) -> bool:
    """Remove a hidden folder unless its writer lives."""
    try:
        lock = _opened(part / _LOCK)
    except OSError:  # gone already, or not ours
        return False
    try:
        # Where the disk knows no locks (None), whose folder it is cannot be known: it stays.
        if not _try_lock(lock):
            return False
        _empty(part, lock)
        return True
    except OSError:
        return False
    finally:
        lock.close()


def _empty(part: Path, lock: BinaryIO) -> None:
    """Remove a hidden folder with what is in it, the lock last."""
    for file in part.iterdir():
        if file.name != _LOCK:
            file.unlink()
    if sys.platform == "win32":  # deletes nothing that is open
        lock.close()
    (part / _LOCK).unlink()
    part.rmdir()


def _opened(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")


def _try_lock(file: BinaryIO) -> bool | None:
    """Whether this process holds the lock now; None where the disk knows no locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True
