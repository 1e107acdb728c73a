"""Makes the project's packages importable by name without the repository root on `sys.path`, where `nodes` would shadow a host's."""
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]  # `python -m pytest` puts it there

for package in ("idea_engine", "launcher", "portrait_world"):
    folder = ROOT / package
    if (folder / "__init__.py").is_file() and package not in sys.modules:
        spec = importlib.util.spec_from_file_location(package, folder / "__init__.py", submodule_search_locations=[str(folder)])
        sys.modules[package] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[package])


@pytest.hookimpl(wrapper=True)  # before pytest-xdist, which reads the groups
def pytest_collection_modifyitems(config, items):
    """With pytest-xdist all tests of one host go to one process, which starts that host once, and so does each file of the others."""
    if not getattr(config.option, "loadgroup", False):
        return (yield)
    groups = {item: _host_of(item) or str(item.path) for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
    # What takes longest goes first, and nobody waits for it at the end.
    items.sort(key=lambda item: _host_of(item) is None)
    return (yield)


def _host_of(item) -> str | None:
    found = getattr(item, "callspec", None) and item.callspec.params.get("host")
    return getattr(found, "id", None)
