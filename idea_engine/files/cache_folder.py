"""A folder of results that can be made again, shared by several hosts: whoever needs room deletes what was used longest ago."""
from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from .atomic_write import sweep


def trim(folder: Path, limit: int) -> None:
    """Delete the files that were used longest ago until the rest takes at most ``limit`` bytes.

    Somebody else may trim at the same moment: what is gone is gone, and nothing is raised.
    """
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.is_file(follow_symlinks=False):
                    facts = entry.stat(follow_symlinks=False)
                    found.append((facts.st_mtime, facts.st_size, entry.path))
    total = 0
    for _, size, path in sorted(found, reverse=True):
        total += size
        if total > limit:
            with suppress(OSError):  # Windows deletes no file in use; it goes the next time
                os.unlink(path)
    sweep(folder)


def used(path: Path) -> None:
    """Note that a file was used just now, so that it is not the next to be trimmed; it may be gone already, and is not made anew."""
    with suppress(OSError):
        os.utime(path)
