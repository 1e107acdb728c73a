"""ComfyUI started otherwise than usual: the first example workflow runs, and learns what it learns there."""
import pytest

from launcher.client import Client
from launcher.example_workflow import example
from launcher.server import HostProcess
from launcher.workflow import load_workflow, override

# Several together, for each start takes its time. --lowvram is not for the CPU; test_dynamic_vram plays what it does.
SETS = (
    ("--fast", "--cache-none"),
    ("--deterministic", "--cache-lru", "5", "--disable-smart-memory", "--reserve-vram", "1"),
)


@pytest.fixture(scope="module")
def usual(host):
    """What the workflow learns where ComfyUI was started as always."""
    return learned(host.client)


def learned(client) -> dict:
    """The workflow in a hurry, with nothing left of an earlier training: who is learned, and how many pictures come."""
    declared = client.object_info()
    prompt = load_workflow(example(0), declared)
    for kind, values in {"IDEA_TrainIDEA": {"steps": 3, "batch": 1}, "KSampler": {"steps": 2}}.items():
        prompt = override(prompt, kind, **values)
    (trained,) = (number for number, node in prompt.items() if node["class_type"] == "IDEA_TrainIDEA")
    client.run({"1": _probe("identities:forget_trainings")})
    client.free()
    execution = client.run({**prompt, "asked": _probe("identities:digest", a=[trained, 0])})
    saving = [number for number, node in prompt.items() if node["class_type"] == "SaveImage"]
    return {
        "identity": execution.outputs["asked"]["text"],
        "pictures": [len(execution.pictures(number)) for number in saving],
    }


def _probe(function: str, **inputs) -> dict:
    return {"class_type": "ProbeRun", "inputs": {"function": function, "arguments": "{}", **inputs}}


@pytest.mark.one_host
@pytest.mark.parametrize("options", SETS, ids=" ".join)
def test_the_first_workflow_learns_the_same_however_comfyui_was_started(host, usual, options):
    if host.id.startswith("pip"):
        pytest.skip("a ComfyUI of June 2024 knows none of these options")
    with HostProcess(host.process.host, host.base, options=options) as process:
        assert learned(Client(process.address)) == usual
    assert all(usual["pictures"])
