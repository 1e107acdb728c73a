"""Real hosts for the tests: each ComfyUI that is found is started once, with our pack and the probe pack, and driven over HTTP."""
import json
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from launcher import hosts
from launcher.base_directory import BaseDirectory
from launcher.client import Client, Execution
from launcher.environment import Environment
from launcher.server import PACK_NAME, HostProcess
from launcher.stand_ins import demo_checkpoint, demo_face_pack

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
DEMO_FACE_PACK = "demo"
# The newest first.
_FOUND = [*hosts.find_checkouts().found, *([hosts.pip_host()] if hosts.pip_host_is_installed() else [])]


@dataclass
class Graph:
    """A graph in API format, put together node by node: `sampler = graph.add("KSampler", model=loader[0], …)`."""

    prompt: dict = field(default_factory=dict)

    def add(self, class_type: str, **inputs) -> "Node":
        """Add a node; an input is a value or another node's output."""
        node = Node(str(max(map(int, self.prompt), default=0) + 1))
        self.prompt[node.id] = {"class_type": class_type, "inputs": inputs}
        return node


@dataclass(frozen=True)
class Node:
    """A node of a Graph; `node[0]` is its first output."""

    id: str

    def __getitem__(self, slot: int) -> list:
        return [self.id, slot]


@dataclass(frozen=True)
class RunningHost:
    """A started host and the means to use it as a client would."""

    process: HostProcess
    client: Client

    @property
    def id(self) -> str:
        """`comfyui-0.3.64`, `pip-0.0.1` …"""
        return self.process.host.id

    @property
    def base(self) -> BaseDirectory:
        """Where its models, input and output are."""
        return self.process.base

    def checkpoint(self, family: str = "sd15") -> str:
        """Return the name of a demo checkpoint, made at the first call: sd15, or (large, slow to load) sd21, sd21-v, sdxl."""
        return self.base.add_checkpoint(demo_checkpoint(Environment(Path(sys.prefix)), family, say=lambda text: None))

    def face_pack(self) -> str:
        """Return the name of the demo face pack in `IDEA_LoadFaceModel`."""
        return self.base.add_face_pack(demo_face_pack(Environment(Path(sys.prefix)), say=lambda text: None), DEMO_FACE_PACK)

    @contextmanager
    def another_process(self):
        """The same host started once more on the same base directory, as after a restart."""
        process = HostProcess(self.process.host, self.base)
        process.start()
        try:
            yield RunningHost(process, Client(process.address))
        finally:
            process.stop()

    def run(self, graph: Graph, timeout: float = 300, on_message=lambda kind, data: None) -> Execution:
        """Queue a graph and wait for it. Raises what `Client.run` raises."""
        return self.client.run(graph.prompt, on_message=on_message, timeout=timeout)

    def probe(self, graph: Graph, function: str, arguments: dict | None = None, timeout: float = 300, **inputs):
        """Run `tests/host/probes`' `module:name` at the end of a graph, on its outputs `a` … `d`; return its answer."""
        extended = Graph(dict(graph.prompt))
        node = extended.add("ProbeRun", function=function, arguments=json.dumps(arguments or {}), **inputs)
        return json.loads(self.run(extended, timeout).outputs[node.id]["text"][0])


def pytest_collection_modifyitems(config, items):
    """Tests that are about our own code within a host run on the newest, unless --every-host says otherwise."""
    alone = config.getoption("--newest-host")
    if config.getoption("--every-host") and not alone:
        return
    spared = {item for item in items if (alone or item.get_closest_marker("one_host")) and _host_of(item) in _FOUND[1:]}
    if spared:
        config.hook.pytest_deselected(items=list(spared))
        items[:] = [item for item in items if item not in spared]


def _host_of(item) -> hosts.Host | None:
    return getattr(getattr(item, "callspec", None), "params", {}).get("host")


@pytest.fixture
def graph() -> Graph:
    """An empty graph."""
    return Graph()


@pytest.fixture(scope="session")
def _started(tmp_path_factory):
    """Every host that has been started so far, by id; all are stopped at the end of the session."""
    started = {}
    yield started
    for host in started.values():
        if isinstance(host, RunningHost):
            host.process.stop()


@pytest.fixture(scope="session", params=_FOUND, ids=lambda host: host.id)
def host(request, _started, tmp_path_factory) -> RunningHost:
    """A running host on the CPU; a test that takes it runs once on every host that was found.

    A host that was found and does not start fails its tests: it is never skipped.
    """
    found = request.param
    if found.id not in _started:
        base = BaseDirectory.make(tmp_path_factory.mktemp(found.id))
        base.add_node_pack(ROOT, PACK_NAME)
        base.add_node_pack(HERE / "probe_pack")
        process = HostProcess(found, base)
        try:
            process.start()
        except Exception as error:
            _started[found.id] = error  # one failed start is enough; every test of this host reports it
            raise
        _started[found.id] = RunningHost(process, Client(process.address))
        _started[found.id].checkpoint()
        _started[found.id].face_pack()
    if isinstance(_started[found.id], Exception):
        raise _started[found.id]
    return _started[found.id]
