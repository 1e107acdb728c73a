"""What the pack adds to the start of a host.

For each host, `--starts` fresh processes: a clock in its custom_nodes (`benchmarks/import_clock`) imports a copy of the pack and reads
NODE_CLASS_MAPPINGS, as the host does with a node pack, after all that the host itself imports. The first start finds no bytecode, as after an
installation; the figure is the median of the others. It also lists which heavy libraries the import brought in: there must be none. One
more start has the pack itself in custom_nodes, for the line that the host prints ('Import times for custom nodes', one decimal).

Goal: 0.15 s.

    python quickstart.py run python benchmarks/import_time.py [--json FILE]
"""
import json
import re
import shutil
import statistics
import tempfile
from pathlib import Path

from fresh_host import HERE, PACK_NAME, ROOT, arguments, found_hosts, started
from launcher.base_directory import NOT_COPIED
from result import print_table, write_json

GOAL = 0.15  # seconds


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--starts", type=int, default=6, help="fresh processes per host (default: %(default)s)")
    options = parser.parse_args()
    measured = {host.id: measure(host, options.starts) for host in found_hosts(options.host)}
    print_table(
        ["host", "median s", "first start s", "host's own line s", "new modules", "heavy ones"],
        [[name, m["seconds"], m["first_start_seconds"], m["host_line_seconds"], m["new_modules"], ", ".join(m["heavy"]) or "none"]
         for name, m in measured.items()],
    )
    write_json(options.json, {"seconds": max(m["seconds"] for m in measured.values()), "goal_seconds": GOAL, "hosts": measured})


def measure(host, starts: int) -> dict:
    with tempfile.TemporaryDirectory(prefix="idea-benchmark-") as folder:
        copy, result = Path(folder) / PACK_NAME, Path(folder) / "clock.json"
        shutil.copytree(ROOT, copy, ignore=NOT_COPIED)
        # Bytecode may be written, as on an artist's machine.
        variables = {"IDEA_CLOCK_PACK": str(copy), "IDEA_CLOCK_RESULT": str(result), "PYTHONDONTWRITEBYTECODE": ""}
        readings = []
        for _ in range(starts):
            with started(host, {"import_clock": HERE / "import_clock"}, variables):
                readings.append(json.loads(result.read_text(encoding="utf-8")))
        with started(host, {PACK_NAME: copy}, variables) as process:
            line = re.search(rf"([\d.]+) seconds[^:\n]*: \S*{PACK_NAME}\b", process.log_text())
    later = [reading["seconds"] for reading in readings[1:]]
    return {
        "seconds": statistics.median(later), "later_seconds": later, "first_start_seconds": readings[0]["seconds"],
        "host_line_seconds": float(line[1]) if line else None, "new_modules": len(readings[-1]["modules"]), "heavy": readings[-1]["heavy"],
    }


if __name__ == "__main__":
    main()
