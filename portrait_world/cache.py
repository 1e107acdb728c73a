"""Where the world's work files live."""
from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where datasets, checkpoints and logs live; made on demand."""
    folder = Path(os.environ.get("PORTRAIT_WORLD_CACHE") or Path.home() / ".cache" / "id-ea" / "portrait")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
