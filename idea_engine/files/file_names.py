"""Names of files that people type and that travel between systems, folders with links in them, and what helps where nothing can be written."""
from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Iterator

from .file_size import shown_size
from .foreign_text import harmless, shown

_NOT_IN_NAMES = set('<>:"|?*')  # what Windows cannot store
_DIGITS = "0123456789¹²³"  # Windows takes the raised ones for the plain ones
_DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "CLOCK$", *(f"{port}{digit}" for port in ("COM", "LPT") for digit in _DIGITS)}
_LONGEST = 255 - len(".safetensors")  # bytes, on nearly every disk


def portable_parts(name: str) -> tuple[str, ...]:
    """The parts of a relative path that stays below its folder and can be stored on every operating system.

    Raises:
        ValueError: with what is wrong, to be put into a sentence: 'is empty', 'leads out of the folder' …
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if not parts or not name.strip():
        raise ValueError("is empty")
    if name.replace("\\", "/").startswith("/") or ".." in parts:
        raise ValueError("leads out of the folder")
    for part in parts:
        if _NOT_IN_NAMES & set(part):
            raise ValueError('has one of < > : " | ? * in it, which Windows cannot store')
        if not all(map(harmless, part)):
            raise ValueError("has characters in it that cannot be seen, such as marks that turn the writing direction")
        if part[-1] in ". ":
            raise ValueError("ends with a dot or a space, which Windows cannot store")
        if part.split(".")[0].strip().upper() in _DEVICES:
            raise ValueError("is a device of Windows, such as CON or COM1")
        if len(part.encode()) > _LONGEST:
            raise ValueError(f"has {len(part)} letters; at most {_LONGEST} bytes fit on most disks")
    return tuple(parts)


def leads_out(path: Path, root: Path) -> bool:
    """Whether a path below ``root`` leads through a link to somewhere else, or round in a circle."""
    try:
        return not path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # a loop of links: the one or the other, by Python's version
        return True


def walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder in and below ``root`` with the names of its files, both sorted; links are followed, each real folder once.

    Links serve people whose models lie on another disk; a link that leads back ends the walk there.
    """
    seen = set()
    for folder, below, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below.sort()
        yield Path(folder), sorted(names)


def write_advice(error: OSError, path: Path, needed: int = 0) -> str:
    """What helps against a file or folder ``path`` that cannot be written.

    Args:
        needed: bytes, where that is known.
    """
    if error.errno == errno.ENAMETOOLONG:
        return f"The name has {len(path.name)} characters; choose a shorter one."
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"A file lies where the folder {shown(path.parent)} is needed: move it away, or use another folder."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"The folder {shown(path.parent)} cannot be written to: change its permissions, or use another folder."
    need = f"{shown_size(needed)} are needed. " if needed else ""
    return f"{need}Free some space or choose another folder."
