"""Which names of ComfyUI the pack touches, read from its source with ast: a small inference of what is a host's and what is not."""
import ast
import builtins
import collections
import contextlib
import importlib
import re
import sys
from pathlib import Path

import idea_engine

ROOT = Path(idea_engine.__file__).parent.parent
FILES = [ROOT / "__init__.py", *sorted((ROOT / "nodes").rglob("*.py")), ROOT / "portrait_world" / "comfy_model.py"]
HOST_MODULES = ("comfy", "comfy_execution", "comfyui_version", "folder_paths", "latent_preview", "nodes", "server", "execution", "node_helpers",
                "comfy_api", "comfy_config", "comfy_extras", "app", "api_server", "middleware", "utils")

# What a variable holds, by its name; "" where a file means something else by it.
_VARIABLES = {
    "clip": "CLIP", "model": "ModelPatcher", "patcher": "ModelPatcher", "vae": "VAE", "unet": "UNetModel", "connected": "UNetModel",
    "latent_format": "LatentFormat", "clip_vision": "ClipVisionModel", "holder": "SD1ClipModel", "base": "BaseModel", "server": "PromptServer",
    "queue": "PromptQueue", "sampling": "ModelSampling", "block": "BasicTransformerBlock", "inner": "SDTokenizer", "extra": "extra",
    "transformer_options": "transformer_options",
}
_IN_FILE = {
    "nodes/host/attention.py": {"base": "", "options": "transformer_options", "patches": "patches"},
    "nodes/host/attention_watch.py": {"tokenizer": "SDTokenizer", "attention": "CrossAttention", "patches": "patches"},
    "nodes/host/backend.py": {"encoder": "SDClipModel", "layer": "CLIPLayer"},
    "nodes/host/clip_score.py": {"encoders": "SDClipModel"},
    "nodes/host/family.py": {"module": "SDClipModel"},
    "nodes/host/frozen.py": {"options": "transformer_options"},
    "nodes/host/masks.py": {"attention": "CrossAttention"},
    "nodes/host/notices.py": {"context": "ExecutionContext", "place": "@nodes"},
    "nodes/host/plain_weights.py": {"loaded": "LoadedModel", "module": "Module"},
    "nodes/host/stand_ins.py": {"module": "SDClipModel", "transformer": "CLIPTextModel"},
    "nodes/host/trigger_tokens.py": {"tokenizer": "SDTokenizer", "inner": "SDTokenizer"},
    "portrait_world/comfy_model.py": {"model": "BaseModel", "config": "SD15"},
}
# What an attribute of a host's object is, or what its method answers.
_HOLDS = {
    "CLIP.patcher": "ModelPatcher", "CLIP.tokenizer": "SD1Tokenizer", "CLIP.cond_stage_model": "SD1ClipModel", "CLIP.clone": "CLIP",
    "ModelPatcher.clone": "ModelPatcher", "ModelPatcher.model": "BaseModel", "ModelPatcher.get_model_object": "ModelSampling",
    "ModelPatcher.model_options": "model_options", 'model_options["transformer_options"]': "transformer_options",
    'transformer_options["patches"]': "patches", "BaseModel.diffusion_model": "UNetModel", "BaseModel.model_sampling": "ModelSampling",
    "BaseModel.latent_format": "LatentFormat", "BasicTransformerBlock.attn2": "CrossAttention", "SDClipModel.transformer": "CLIPTextModel",
    "CLIPTextModel.text_model": "CLIPTextModel_", "CLIPTextModel_.embeddings": "CLIPEmbeddings", "CLIPTextModel_.encoder": "CLIPEncoder",
    "SDTokenizer.tokenizer": "CLIPTokenizer", "VAE.patcher": "ModelPatcher", "PromptServer.prompt_queue": "PromptQueue",
    "LoadedModel.model": "ModelPatcher", "comfy.sd.CLIP": "CLIP", "comfy.sd.VAE": "VAE", "comfy.utils.ProgressBar": "ProgressBar",
    "server.PromptServer.instance": "PromptServer", "server.web": "",  # aiohttp's own
    "comfy.model_management.current_loaded_models": "", "comfy.taesd.taesd.TAESD": "",
}
_DICTS = {"extra": "extra", "transformer_options": "transformer_options", "patches": 'transformer_options["patches"]', "model_options": "model_options"}
# What attributes of our own objects hold: self.clip, backend.model.
_OURS = {"clip": "CLIP", "encoders": "SDClipModel", "text": "CLIP", "model": "ModelPatcher", "denoiser": "ModelPatcher", "vae": "VAE", "bar": "ProgressBar",
         "previewer": "Latent2RGBPreviewer"}
# What Python's web server gives a route; the host passes it on.
_REQUEST = {"content_type", "explicit_port", "headers", "json", "json_response", "post", "url"}


def uses() -> dict[str, set[str]]:
    """Name of the host → the files of the pack that touch it: `comfy.sd.CLIP`, `ModelPatcher.clone`, `extra["block"]`."""
    found = collections.defaultdict(set)
    for path in FILES:
        name = path.relative_to(ROOT).as_posix()
        for used in names_in(ast.parse(path.read_text(encoding="utf-8")), name):
            found[used].add(name)
    return dict(found)


def names_in(tree: ast.Module, file: str) -> set[str]:
    """The names of the host that one file touches; ``file`` tells what its variables hold."""
    return _Reader(file).read(tree)


def used_in(names: list[str]) -> dict[str, set[str]]:
    """Each of these names → the files of the pack that touch it; none for a name that is not used.

    Where nothing tells whose attribute it is (a host's object that came out of a list), its own word is enough, if no other of the names ends with it.
    """
    inferred, asked, spoken = uses(), strangers(), _spoken()
    ends = collections.Counter(map(last_word, names))
    found = {}
    for name in names:
        word = last_word(name)
        loose = asked.get(word, set()) if ends[word] == 1 else set()
        strict = {file for used, files in inferred.items() if used == name or used.startswith((f"{name}.", f"{name}[")) for file in files}
        found[name] = strict | loose or {file for file, (constants, others) in spoken.items() if word in constants or ("[" not in name and word in others)}
    return found


def last_word(name: str) -> str:
    """`clone` of `ModelPatcher.clone`, `block` of `extra["block"]`, `disable_dynamic` of `ModelPatcher.clone(disable_dynamic)`."""
    return re.findall(r"\w+", name)[-1]


def _spoken() -> dict[str, tuple[set[str], set[str]]]:
    """File of the pack → the words in its texts, which may be keys or names of attributes, and its attributes, keywords and methods."""
    found = {}
    for path in FILES:
        constants, others = set(), set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
                constants.add(node.value)
            elif isinstance(node, (ast.FunctionDef, ast.Attribute, ast.keyword)):
                others.add(next(getattr(node, field) for field in ("name", "attr", "arg") if hasattr(node, field)))
        found[path.relative_to(ROOT).as_posix()] = (constants, others)
    return found


def strangers() -> dict[str, set[str]]:
    """Attribute names that neither Python, torch, nor the pack itself defines → where they are asked for. What is left is the host's."""
    known, asked = _known_attributes(), collections.defaultdict(set)
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = None
            if isinstance(node, ast.Attribute):
                name = node.attr
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr") and isinstance(node.args[1], ast.Constant):
                name = node.args[1].value
            if name is not None and name not in known and not name.startswith("_idea"):
                asked[name].add(path.relative_to(ROOT).as_posix())
    return dict(asked)


class _Reader:
    def __init__(self, file: str):
        self._file = file
        self._modules: dict[str, str] = {}
        self._found: set[str] = set()

    def read(self, tree: ast.Module) -> set[str]:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for one in node.names:
                    if _is_host(one.name):
                        self._modules[one.asname or one.name.partition(".")[0]] = one.name if one.asname else one.name.partition(".")[0]
                        self._found.add(one.name)
            elif isinstance(node, ast.ImportFrom) and not node.level and _is_host(node.module):
                for one in node.names:
                    self._found.add(f"{node.module}.{one.name}")
                    self._modules[one.asname or one.name] = f"{node.module}.{one.name}"
        self._scope(tree, {**_VARIABLES, **_IN_FILE.get(self._file, {})})
        return {name for name in self._found if not any(other.startswith((f"{name}.", f"{name}[")) for other in self._found)}

    def _scope(self, scope, types: dict[str, str]) -> None:
        """One function: its own variables, then what is in it, then the functions in it."""
        self._types = types = dict(types)
        if isinstance(scope, ast.FunctionDef):
            for argument in scope.args.args:
                if argument.arg == "model" and argument.annotation is not None:  # the host's patchers have no annotation, torch's modules have
                    types["model"] = "Module"
        own, inner = [], []
        left = list(ast.iter_child_nodes(scope))
        while left:
            node = left.pop(0)
            own.append(node)
            (inner.append(node) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else left.extend(ast.iter_child_nodes(node)))
        for node in own:
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                kind = self._kind(node.value)
                if kind is not None:
                    types[node.targets[0].id] = kind
        for node in own:
            if node not in inner:
                self._kind(node)
        for function in inner:
            self._scope(function, types)

    def _kind(self, node) -> str | None:
        """What an expression holds: a class of the host, `@module`, or None where it is nothing of the host's."""
        if isinstance(node, ast.Name):
            return f"@{self._modules[node.id]}" if node.id in self._modules else self._types.get(node.id)
        if isinstance(node, ast.Call):
            return self._called(node)
        if isinstance(node, ast.Subscript):
            if ast.unparse(node.value) == "sys.modules" and isinstance(node.slice, ast.Constant):
                return self._module(node.slice.value)
            kind = self._kind(node.value)
            return kind if kind == "SDClipModel" else self._key(kind, node.slice)  # one of several, by key or number
        if isinstance(node, ast.Attribute):
            kind = self._kind(node.value)
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "backend")
            return _OURS.get(node.attr) if own else self._attribute(kind, node.attr)
        if isinstance(node, ast.BoolOp):
            return next((kind for kind in map(self._kind, node.values) if kind), None)
        return None

    def _called(self, node: ast.Call) -> str | None:
        called = ast.unparse(node.func)
        if called in ("getattr", "hasattr") and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
            return self._attribute(self._kind(node.args[0]), node.args[1].value)
        if called == "sys.modules.get" and isinstance(node.args[0], ast.Constant):
            return self._module(node.args[0].value)
        if called == "host_server":
            return "PromptServer"
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("get", "pop", "setdefault") and node.args:
            return self._key(self._kind(node.func.value), node.args[0])
        kind = self._kind(node.func)
        if isinstance(node.func, ast.Name) and not (kind or "").startswith("@"):
            return None  # an object that is called: a module of torch
        return _HOLDS.get(kind.removeprefix("@"), "") if kind and kind.startswith("@") else kind

    def _module(self, name: str) -> str:
        self._found.add(name)
        return f"@{name}"

    def _attribute(self, kind: str | None, name: str) -> str | None:
        if not kind or name in _inherited(kind) or name.startswith("_idea"):
            return None
        full = f"{kind.removeprefix('@')}.{name}"
        self._found.add(full)
        if full in _HOLDS and not (kind.startswith("@") and name[0].isupper()):
            return _HOLDS[full]
        return f"@{full}" if kind.startswith("@") else None

    def _key(self, kind: str | None, key) -> str | None:
        if kind not in _DICTS or not isinstance(key, ast.Constant) or not isinstance(key.value, str) or key.value.startswith("idea"):
            return None
        full = f'{_DICTS[kind]}["{key.value}"]'
        self._found.add(full)
        return _HOLDS.get(full)


def _is_host(module: str | None) -> bool:
    return module is not None and module.partition(".")[0] in HOST_MODULES


def _inherited(kind: str) -> set[str]:
    """What an object has from torch or from dict, whoever made it."""
    from torch import nn

    if kind in ("SDClipModel", "SDTokenizer"):
        several = {"items", "values"}  # by key
    else:
        several = set(dir(dict)) if kind in _DICTS else set()
    if kind in ("BaseModel", "UNetModel", "BasicTransformerBlock", "CrossAttention", "SD1ClipModel", "SDClipModel", "CLIPTextModel", "Module", "CLIPLayer",
                "CLIPEmbeddings", "CLIPEncoder"):
        return set(dir(nn.Module)) - {"forward"} | {"_parameters", "_buffers", "_modules", "weight"} | several
    return several


def _known_attributes() -> set[str]:
    import os

    import numpy
    import PIL.Image
    import torch

    kinds = [*vars(builtins).values(), Path, os.path, torch, torch.Tensor, torch.nn, torch.nn.Linear, torch.nn.functional, torch.nn.LayerNorm,
             torch.nn.Embedding, torch.autograd.graph, torch.compiler, torch.Generator, PIL.Image, PIL.Image.Image, numpy, numpy.ndarray]
    known = set().union(*(dir(kind) for kind in kinds)) | {"_modules", "_parameters", "_buffers"} | _REQUEST
    for path in [*(ROOT / "nodes").rglob("*.py"), *(ROOT / "idea_engine").rglob("*.py"), *(ROOT / "portrait_world").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                known.add(node.name)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                known.add(node.target.id)
            elif isinstance(node, ast.Assign):
                known |= {one.id for target in node.targets for one in ast.walk(target) if isinstance(one, ast.Name)}
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name) and node.value.id not in _VARIABLES:
                known.add(node.attr)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [node.module] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names]
                for name in names:
                    if name and name.partition(".")[0] in sys.stdlib_module_names and not (isinstance(node, ast.ImportFrom) and node.level):
                        with contextlib.suppress(ImportError):
                            module = importlib.import_module(name)
                            known |= set(dir(module)).union(*(dir(one) for one in vars(module).values() if isinstance(one, type)))
    return known
