"""How a benchmark ends: a small table on the terminal and, with `--json FILE`, everything as JSON."""
import json
import os
import platform
import sys
from pathlib import Path
from typing import Sequence


def machine() -> dict:
    """What the figures depend on besides the code."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {"device": device, "cores": os.cpu_count(), "system": f"{platform.system()} {platform.machine()}", "python": platform.python_version(),
            "torch": torch.__version__}


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows in columns; floats with three digits after the point."""
    cells = [list(header), *([f"{value:.3f}" if isinstance(value, float) else str(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    for number, row in enumerate(cells):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))


def write_json(path: Path | None, result: dict) -> None:
    """Write the result with the machine's description, if a file was asked for."""
    if path is not None:
        path.write_text(json.dumps({"machine": machine(), **result}, indent=2) + "\n", encoding="utf-8")
        print(f"\nWritten: {path}", file=sys.stderr)
