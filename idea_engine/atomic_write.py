"""Writing a file so that it is there wholly or not at all."""
from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Callable


def atomic_write(path: Path, write: bytes | Callable[[Path], object]) -> None:
    """Write to a temporary name beside ``path``, then rename: an existing file is replaced wholly or left untouched.

    The folder is made when missing. The file is readable by everybody, as files usually are (temporary ones are not).

    Args:
        write: the content; or a function that writes it to the path it is given, for what is too large to be held twice.

    Raises:
        OSError: disk full, no permission …, and whatever ``write`` raises; nothing is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        temporary.write_bytes(write) if isinstance(write, bytes) else write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
