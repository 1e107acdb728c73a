"""Which names of ComfyUI the pack touches, read from its source with ast: what is a host's is inferred."""
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
HOST_MODULES = (
    "api_server", "app", "comfy", "comfy_api", "comfy_config", "comfy_execution", "comfy_extras", "comfyui_version",
    "execution", "folder_paths", "latent_preview", "middleware", "node_helpers", "nodes", "server", "utils",
)

# What a variable holds, by its name; "" where a file means something else by it.
_VARIABLES = {
    "clip": "CLIP", "model": "ModelPatcher", "patcher": "ModelPatcher", "vae": "VAE", "unet": "UNetModel",
    "connected": "UNetModel", "latent_format": "LatentFormat", "clip_vision": "ClipVisionModel",
    "holder": "SD1ClipModel", "base": "BaseModel", "server": "PromptServer", "queue": "PromptQueue",
    "sampling": "ModelSampling", "block": "BasicTransformerBlock", "inner": "SDTokenizer", "extra": "extra",
    "transformer_options": "transformer_options",
}
IN_FILE = {
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
# What an attribute of a host's object is, or what its method answers; "" where the rest is not the host's own.
_HOLDS = {
    "CLIP.patcher": "ModelPatcher", "CLIP.tokenizer": "SD1Tokenizer", "CLIP.cond_stage_model": "SD1ClipModel",
    "CLIP.clone": "CLIP", "ModelPatcher.clone": "ModelPatcher", "ModelPatcher.model": "BaseModel",
    "ModelPatcher.get_model_object": "ModelSampling", "ModelPatcher.model_options": "model_options",
    'model_options["transformer_options"]': "transformer_options", 'transformer_options["patches"]': "patches",
    "BaseModel.diffusion_model": "UNetModel", "BaseModel.model_sampling": "ModelSampling",
    "BaseModel.latent_format": "LatentFormat", "BasicTransformerBlock.attn2": "CrossAttention",
    "SDClipModel.transformer": "CLIPTextModel", "CLIPTextModel.text_model": "CLIPTextModel_",
    "CLIPTextModel_.embeddings": "CLIPEmbeddings", "CLIPTextModel_.encoder": "CLIPEncoder",
    "SDTokenizer.tokenizer": "CLIPTokenizer", "VAE.patcher": "ModelPatcher",
    "PromptServer.prompt_queue": "PromptQueue", "LoadedModel.model": "ModelPatcher", "comfy.sd.CLIP": "CLIP",
    "comfy.sd.VAE": "VAE", "comfy.utils.ProgressBar": "ProgressBar", "server.PromptServer.instance": "PromptServer",
    "server.web": "", "comfy.model_management.current_loaded_models": "", "comfy.taesd.taesd.TAESD": "",
}
_DICTS = {
    "extra": "extra", "model_options": "model_options", "transformer_options": "transformer_options",
    "patches": 'transformer_options["patches"]',
}
# What attributes of our own objects hold: self.clip, backend.model.
_TORCH_MODULES = {
    "BaseModel", "BasicTransformerBlock", "CLIPEmbeddings", "CLIPEncoder", "CLIPLayer", "CLIPTextModel",
    "CrossAttention", "Module", "SD1ClipModel", "SDClipModel", "UNetModel",
}
_OURS = {
    "clip": "CLIP", "text": "CLIP", "encoders": "SDClipModel", "model": "ModelPatcher", "denoiser": "ModelPatcher",
    "vae": "VAE", "bar": "ProgressBar", "previewer": "Latent2RGBPreviewer",
}
# What Python's web server gives a route; the host passes it on.
_REQUEST = {"content_type", "explicit_port", "headers", "json", "json_response", "post", "url"}


def uses() -> dict[str, set[str]]:
    """Name of the host, such as `ModelPatcher.clone` or `extra["block"]` → the files of the pack that touch it."""
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

    Where nothing tells whose attribute it is (a host's object that came out of a list), its own word is enough, if no
    other of the names ends with it.
    """
    inferred, asked, spoken = uses(), strangers(), _spoken()
    ends = collections.Counter(map(last_word, names))
    found = {}
    for name in names:
        word = last_word(name)
        loose = asked.get(word, set()) if ends[word] == 1 else set()
        under = (f"{name}.", f"{name}[")
        strict = {file for used, files in inferred.items() if used == name or used.startswith(under) for file in files}
        found[name] = strict | loose or {
            file for file, (constants, others) in spoken.items()
            if word in constants or ("[" not in name and word in others)
        }
    return found


def last_word(name: str) -> str:
    """`clone` of `ModelPatcher.clone`, `block` of `extra["block"]`, `sd` of `ModelPatcher.clone(sd)`."""
    return re.findall(r"\w+", name)[-1]


def _spoken() -> dict[str, tuple[set[str], set[str]]]:
    """File of the pack → its words in quotes, which may be keys or attributes; and attributes, keywords, methods."""
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
    """Attributes that neither Python, torch nor the pack has, so they are the host's → where they are asked for."""
    known, asked = _known_attributes(), collections.defaultdict(set)
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = None
            if isinstance(node, ast.Attribute):
                name = node.attr
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
                name = node.args[1].value if isinstance(node.args[1], ast.Constant) else None
            if name is not None and name not in known and not name.startswith("_idea"):
                asked[name].add(path.relative_to(ROOT).as_posix())
    return dict(asked)


def replaced() -> dict[str, set[str]]:
    """Methods of a host's class that a mixin of ours stands in front of, for it asks the one behind → where."""
    found = collections.defaultdict(set)
    for path in FILES:
        for kind in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for node in ast.walk(kind) if isinstance(kind, ast.ClassDef) and not kind.bases else ():
                behind = isinstance(node, ast.Attribute) and ast.unparse(node.value) == "super()"
                if behind and not node.attr.endswith("__"):
                    found[node.attr].add(path.relative_to(ROOT).as_posix())
    return dict(found)


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
                        package = one.name.partition(".")[0]
                        self._modules[one.asname or package] = one.name if one.asname else package
                        self._found.add(one.name)
            elif isinstance(node, ast.ImportFrom) and not node.level and _is_host(node.module):
                for one in node.names:
                    self._found.add(f"{node.module}.{one.name}")
                    self._modules[one.asname or one.name] = f"{node.module}.{one.name}"
        self._scope(tree, {**_VARIABLES, **IN_FILE.get(self._file, {})})
        longer = {name: (f"{name}.", f"{name}[") for name in self._found}
        return {name for name in self._found if not any(other.startswith(longer[name]) for other in self._found)}

    def _scope(self, scope, types: dict[str, str]) -> None:
        """One function: its own variables, then what is in it, then the functions in it."""
        self._types = types = dict(types)
        if isinstance(scope, ast.FunctionDef):
            for argument in scope.args.args:
                if argument.arg == "model" and argument.annotation is not None:
                    types["model"] = "Module"  # torch's; the host's patchers have no annotation
        own, inner = [], []
        left = list(ast.iter_child_nodes(scope))
        while left:
            node = left.pop(0)
            own.append(node)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                inner.append(node)
            else:
                left.extend(ast.iter_child_nodes(node))
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
        if kind not in _DICTS or not isinstance(key, ast.Constant):
            return None
        if not isinstance(key.value, str) or key.value.startswith("idea"):
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
    if kind in _TORCH_MODULES:
        return set(dir(nn.Module)) - {"forward"} | {"_parameters", "_buffers", "_modules", "weight"} | several
    return several


def _known_attributes() -> set[str]:
    import os

    import numpy
    import PIL.Image
    import torch

    kinds = [
        *vars(builtins).values(), Path, os.path, numpy, numpy.ndarray, PIL.Image, PIL.Image.Image, torch, torch.Tensor,
        torch.Generator, torch.autograd.graph, torch.compiler, torch.nn, torch.nn.functional, torch.nn.Embedding,
        torch.nn.LayerNorm, torch.nn.Linear,
    ]
    known = set().union(*(dir(kind) for kind in kinds)) | {"_modules", "_parameters", "_buffers"} | _REQUEST
    folders = [ROOT / name for name in ("nodes", "idea_engine", "portrait_world")]
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                known.add(node.name)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                known.add(node.target.id)
            elif isinstance(node, ast.Assign):
                known |= {one.id for target in node.targets for one in ast.walk(target) if isinstance(one, ast.Name)}
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                known |= set() if ast.unparse(node.value) in _VARIABLES else {node.attr}
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                for name in [one.name for one in node.names] if isinstance(node, ast.Import) else [node.module or ""]:
                    if name.partition(".")[0] in sys.stdlib_module_names and not getattr(node, "level", 0):
                        with contextlib.suppress(ImportError):
                            module = importlib.import_module(name)
                            classes = [one for one in vars(module).values() if isinstance(one, type)]
                            known |= set(dir(module)).union(*map(dir, classes))
    return known
