"""Single modules of the nodes without a host."""
from __future__ import annotations

import importlib
import sys
import types
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def bare_module(name: str):
    """``nodes.host.images`` and its like inside bare packages: the pack's own ``__init__`` files want a host.

    Its errors are the engine's own, so that a test can name them.
    """
    for package, folder in {"bare_pack": ROOT, "bare_pack.nodes": ROOT / "nodes", "bare_pack.nodes.host": ROOT / "nodes" / "host"}.items():
        sys.modules[package] = types.ModuleType(package)
        sys.modules[package].__path__ = [str(folder)]
    engine = sys.modules["bare_pack.idea_engine"] = importlib.import_module("idea_engine")
    own = dict(vars(engine))
    sys.modules["bare_pack.idea_engine.errors"] = importlib.import_module("idea_engine.errors")
    try:
        yield importlib.import_module(f"bare_pack.{name}")
    finally:
        for loaded in [loaded for loaded in sys.modules if loaded.split(".")[0] == "bare_pack"]:
            del sys.modules[loaded]
        # What was imported as bare_pack.idea_engine.x has put itself in the place of the engine's own x.
        vars(engine).update(own)
        for name, module in list(sys.modules.items()):
            if name.startswith("idea_engine.") and name.count(".") == 1:
                setattr(engine, name.partition(".")[2], module)
