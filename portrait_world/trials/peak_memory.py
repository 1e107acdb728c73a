"""How much memory a measurement took."""
from __future__ import annotations

import sys


def peak_megabytes() -> float:
    """The most memory that this process has held so far; nan on Windows, which has no ``resource``."""
    try:
        import resource
    except ImportError:
        return float("nan")
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10  # macOS counts bytes, Linux kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
