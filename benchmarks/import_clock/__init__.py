"""A node pack that only `benchmarks/import_time.py` loads: imports another pack as the host would, and writes down what that took."""
import importlib.util
import json
import os
import sys
import time
from pathlib import Path

HEAVY = ("insightface", "onnxruntime", "cv2", "diffusers", "transformers", "matplotlib", "scipy", "PIL", "safetensors")
NODE_CLASS_MAPPINGS = {}


def _measure(pack: Path, result: Path) -> None:
    before = set(sys.modules)
    started = time.perf_counter()
    spec = importlib.util.spec_from_file_location("idea_under_the_clock", pack / "__init__.py", submodule_search_locations=[str(pack)])
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    nodes = sorted(module.NODE_CLASS_MAPPINGS)
    seconds = time.perf_counter() - started
    new = sorted(set(sys.modules) - before)
    heavy = [name for name in HEAVY if any(module == name or module.startswith(name + ".") for module in new)]
    result.write_text(json.dumps({"seconds": seconds, "nodes": nodes, "modules": new, "heavy": heavy}), encoding="utf-8")


_measure(Path(os.environ["IDEA_CLOCK_PACK"]), Path(os.environ["IDEA_CLOCK_RESULT"]))
