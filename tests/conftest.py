"""Makes the project's packages importable by name without the repository root on `sys.path`, where `nodes` would shadow a host's."""
import importlib.util
import os
import re
import sys
from pathlib import Path

import pytest

# For this process and those it starts: the models are tiny, a second thread waits more than it computes, and sums in another order.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]  # `python -m pytest` puts it there

for package in ("idea_engine", "idea_cli", "launcher", "portrait_world", "tools", "benchmarks"):
    folder = ROOT / package
    if (folder / "__init__.py").is_file() and package not in sys.modules:
        spec = importlib.util.spec_from_file_location(package, folder / "__init__.py", submodule_search_locations=[str(folder)])
        sys.modules[package] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[package])


from launcher import hosts  # noqa: E402  (not before it can be imported by name)


def pytest_addoption(parser):
    parser.addoption("--every-host", action="store_true",
                     help="run the tests marked one_host on every ComfyUI that is found, not only on the newest")
    parser.addoption("--newest-host", action="store_true",
                     help="run the host tests on the newest ComfyUI that is found and on no other")
    parser.addoption("--fuzz-minutes", type=float, default=0.0, help="how long tests/fuzz goes on with each kind of files; by default a fixed number of them")
    parser.addoption("--fuzz-seed", type=int, default=0, help="the number of the first attempt of each kind in tests/fuzz")


# In a test's name, as launcher.hosts calls hosts.
_HOST = re.compile(r"(?<=[\[-])(comfyui-(?:\d|unknown)|pip-\d)[\w.]*")


def host_named(nodeid: str) -> str | None:
    """Return the id of the host that a test's name says it runs on."""
    found = _HOST.search(nodeid)
    return found[0] if found else None


@pytest.hookimpl(optionalhook=True)  # there may be no pytest-xdist
def pytest_xdist_make_scheduler(config, log):
    """In several processes all tests of one host go to one of them, which starts that host once, and so does each file of the others."""
    from xdist.scheduler import LoadScopeScheduling

    class OneHostEach(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return host_named(nodeid) or nodeid.split("::")[0]

    return OneHostEach(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around pytest's own, so that no list of failures comes after it
def pytest_terminal_summary(terminalreporter, config):
    """Say which hosts the tests ran on, and which could not be found, or not as a whole."""
    yield
    results = {kind: [report for report in reports if getattr(report, "nodeid", "").startswith("tests/host/")]
               for kind, reports in terminalreporter.stats.items() if kind in ("passed", "failed", "error", "skipped")}
    if not any(results.values()):
        return
    terminalreporter.section("hosts")
    for host in found_hosts(config):
        counts = {kind: sum(host_named(report.nodeid) == host.id for report in reports) for kind, reports in results.items()}
        told = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "found, but no test ran on it"
        terminalreporter.write_line(f"{host}: {told}")
    missing = [*hosts.find_checkouts().missing]
    if not hosts.pip_host_is_installed():
        missing.append("the pip host: not installed in this environment")
    for sentence in missing:
        terminalreporter.write_line(f"  looked for {sentence}")


def found_hosts(config):
    """Return the hosts that tests run on, the newest first."""
    found = [*hosts.find_checkouts().found, *([hosts.pip_host()] if hosts.pip_host_is_installed() else [])]
    return found[:1] if config.getoption("--newest-host") else found
