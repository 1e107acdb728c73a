"""A node pack that only the benchmarks load: `BenchmarkRun` calls one function of this folder inside the host's executor."""
import importlib
import json
import sys
from types import ModuleType


def pack(name: str) -> ModuleType:
    """A module of our pack as the host has loaded it, by its dotted path: `idea_engine.training.loop`, `nodes.apply`."""
    train = next(module for module in sys.modules if module.endswith(".nodes.train") and hasattr(sys.modules[module], "TrainIDEA"))
    return importlib.import_module(f"{train.removesuffix('.nodes.train')}.{name}")


class BenchmarkRun:
    """Calls `function` (`module:name`) with MODEL, if one is connected, CLIP, VAE and the arguments; shows its answer as JSON."""

    CATEGORY = "benchmark"
    FUNCTION = "run"
    OUTPUT_NODE = True
    RETURN_TYPES = ()

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"function": ("STRING", {"default": ""}), "arguments": ("STRING", {"default": "{}"}), "clip": ("CLIP",), "vae": ("VAE",)},
            "optional": {"model": ("MODEL",)},
        }

    @classmethod
    def IS_CHANGED(cls, **inputs):
        return float("nan")  # it measures, so it runs every time

    def run(self, function, arguments, clip, vae, model=None):
        module, name = function.split(":")
        measure = getattr(importlib.import_module(f".{module}", __name__), name)
        inputs = (clip, vae) if model is None else (model, clip, vae)
        return {"ui": {"text": [json.dumps(measure(*inputs, **json.loads(arguments)))]}}


NODE_CLASS_MAPPINGS = {"BenchmarkRun": BenchmarkRun}
