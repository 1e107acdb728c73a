"""Two floors: the engine never imports the host, and nothing heavy is imported before its first use."""
import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOST = {"comfy", "folder_paths", "server", "nodes", "execution", "latent_preview", "comfy_api", "comfy_execution"}
HEAVY = {"insightface", "onnxruntime", "onnx", "diffusers", "transformers", "matplotlib", "cv2", "scipy", "PIL", "safetensors"}


def imports(path: Path, top_only: bool):
    """Top-level package names imported by a file; with ``top_only`` only what runs when the file is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    todo = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]
        if not (top_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))):
            todo.extend(ast.iter_child_nodes(node))


ENGINE = sorted((ROOT / "idea_engine").rglob("*.py"))
NODES = sorted((ROOT / "nodes").rglob("*.py"))


@pytest.mark.parametrize("path", ENGINE, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_engine_never_imports_the_host(path):
    assert not set(imports(path, top_only=False)) & HOST


@pytest.mark.parametrize("path", [p for p in NODES if p.parent.name != "host"], ids=lambda p: str(p.relative_to(ROOT)))
def test_only_the_host_room_knows_the_host(path):
    assert not set(imports(path, top_only=False)) & HOST


@pytest.mark.parametrize("path", ENGINE + NODES + [ROOT / "__init__.py"], ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_heavy_is_imported_at_import(path):
    assert not set(imports(path, top_only=True)) & HEAVY


@pytest.mark.parametrize("path", NODES + [ROOT / "__init__.py"], ids=lambda p: str(p.relative_to(ROOT)))
def test_the_pack_does_not_print(path):
    calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
    assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]
