"""Makes the project's packages importable by name without the repository root on `sys.path`, where `nodes` would shadow a host's."""
import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]  # `python -m pytest` puts it there

for package in ("idea_engine", "launcher", "portrait_world"):
    folder = ROOT / package
    if (folder / "__init__.py").is_file() and package not in sys.modules:
        spec = importlib.util.spec_from_file_location(package, folder / "__init__.py", submodule_search_locations=[str(folder)])
        sys.modules[package] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[package])
