"""Nodes that exist only in the tests. `ProbeRun` runs one named function of `tests/host/probes` inside the host's executor."""
import functools
import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
PACK = HERE.parents[2]  # the repository, which the host loads as another node pack


class AnyType(str):
    """A socket type that equals every other."""

    def __ne__(self, other):
        return False


ANY = AnyType("*")


@dataclass(frozen=True)
class Probe:
    """What a probe function is given."""

    arguments: dict
    a: Any = None
    b: Any = None
    c: Any = None
    d: Any = None

    def module(self, name: str) -> ModuleType:
        """Return a module of our pack as the host has it, by its dotted path: `nodes.host.attention`, `idea_engine.prompts.trigger`."""
        return importlib.import_module(f".{name}", package=loaded_pack().__name__)


@functools.cache  # a host has thousands of modules, and every probe asks
def loaded_pack() -> ModuleType:
    """Return our pack's root module, which each host registers under a name of its own."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and Path(file).name == "__init__.py" and Path(file).resolve().parent == PACK:
            return module
    raise LookupError("The host has not loaded the pack.")


class ProbeRun:
    """Calls `function` (`module:name`) with a Probe. It returns what JSON can hold; a dict's `outputs`, a tuple, goes to the sockets."""

    CATEGORY = "probe"
    FUNCTION = "run"
    OUTPUT_NODE = True
    RETURN_TYPES = (ANY, ANY, ANY)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"function": ("STRING", {"default": ""}), "arguments": ("STRING", {"default": "{}", "multiline": True})},
                "optional": {name: (ANY,) for name in "abcd"}}

    @classmethod
    def IS_CHANGED(cls, **inputs):
        return float("nan")  # a probe measures, so it runs every time

    def run(self, function, arguments, a=None, b=None, c=None, d=None):
        module, name = function.split(":")
        answer = getattr(load_probe(module), name)(Probe(json.loads(arguments), a, b, c, d))
        outputs = answer.pop("outputs", ()) if isinstance(answer, dict) else ()
        return {"ui": {"text": [json.dumps(answer)]}, "result": (*outputs, None, None, None)[:3]}


class ProbeLists(ProbeRun):
    """A ProbeRun whose outputs are lists: the function's `outputs` are lists of what each socket gives, one after another."""

    OUTPUT_IS_LIST = (True, True, True)

    def run(self, function, arguments, a=None, b=None, c=None, d=None):
        answer = super().run(function, arguments, a, b, c, d)
        return {**answer, "result": tuple([] if one is None else one for one in answer["result"])}


def load_probe(module: str) -> ModuleType:
    """Load `tests/host/probes/<module>.py` afresh, so that an edit counts without restarting the host."""
    path = HERE.parent / "probes" / f"{module}.py"
    spec = importlib.util.spec_from_file_location(f"idea_probe_{module}", path)
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


NODE_CLASS_MAPPINGS = {"ProbeRun": ProbeRun, "ProbeLists": ProbeLists}
