"""What the registry ships does nothing that its scanner, or a careful reader, would flag. Read with ast."""
import ast
import shutil
from pathlib import Path

import idea_engine
import pytest
from launcher.archive import shipped_files
from launcher.requirements import read_lines
from PIL import Image

ROOT = Path(idea_engine.__file__).parent.parent
CALLS = {"eval", "exec", "__import__", "import_module", "system", "popen", "Popen", "spawn"}
MODULES = {"subprocess", "pickle", "cPickle", "dill", "marshal", "shelve", "socket", "urllib", "http", "requests", "aiohttp", "ftplib", "ctypes", "importlib", "imp"}

pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="this checkout is no git repository")


def flagged(tree: ast.Module) -> list[str]:
    """What a scan finds in one file: calls by name or attribute, and imports."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr if isinstance(node.func, ast.Attribute) else ""
            found += [f"{name}()"] if name in CALLS or (name == "compile" and isinstance(node.func, ast.Name)) else []  # re.compile is none
            if name == "load" and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name) and node.func.value.id == "torch":
                safe = any(k.arg == "weights_only" and isinstance(k.value, ast.Constant) and k.value.value is True for k in node.keywords)
                found += [] if safe else ["torch.load without weights_only=True"]
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        found += [f"import {name}" for name in names if name and name.split(".")[0] in MODULES]
    return found


@pytest.mark.parametrize("text, finds", [
    ("eval('1')", 1), ("model.eval()", 1), ("import subprocess", 1), ("from urllib import request", 1), ("import os; os.system('x')", 1), ("torch.load(p)", 1),
    ("torch.load(p, weights_only=True)", 0), ("from .http import x", 0), ("model.train(False)", 0)])
def test_the_scan_sees_what_it_looks_for(text, finds):
    assert len(flagged(ast.parse(text))) == finds


def test_no_shipped_file_does_what_the_registry_flags():
    python = [name for name in shipped_files() if name.endswith(".py")]
    assert len(python) > 50
    assert {name: found for name in python if (found := flagged(ast.parse((ROOT / name).read_text(encoding="utf-8"))))} == {}


def test_no_shipped_script_of_the_browser_asks_another_host():
    scripts = {name: (ROOT / name).read_text(encoding="utf-8") for name in shipped_files() if name.endswith(".js")}
    assert scripts and not [name for name, text in scripts.items() if "eval(" in text or "new Function" in text or "fetch('http" in text or 'fetch("http' in text]


def test_everything_an_artist_expects_is_shipped():
    shipped = set(shipped_files())
    wanted = {"__init__.py", "LICENSE", "README.md", "requirements.txt", "requirements-face.txt", "pyproject.toml", *(f"locales/{lang}/nodeDefs.json" for lang in ("en", "zh", "ja", "ko"))}
    wanted |= {f"example_workflows/{path.name}" for path in (ROOT / "example_workflows").iterdir()}
    assert wanted <= shipped
    assert not [name for name in shipped if name.split("/")[0] in ("tests", "launcher", "benchmarks", ".ci", ".github")]


def test_the_requirements_neither_pin_what_a_host_pins_nor_bring_an_onnxruntime():
    from importlib.metadata import requires

    names = [line.lower() for line in read_lines(ROOT / "requirements.txt")]
    assert all(name.isidentifier() for name in names)  # no version, no marker
    asked_for = {need.split(";")[0].split("[")[0].strip().split(" ")[0].rstrip("<>=!~.0123456789") for name in names for need in requires(name) or () if "extra ==" not in need}
    assert not {need for need in {*names, *asked_for} if need.startswith(("onnxruntime", "torch", "transformers", "diffusers", "insightface"))}


def test_icon_and_banner_have_the_shapes_the_registry_wants():
    try:
        import tomllib
    except ImportError:
        pytest.skip("Python 3.10 cannot read TOML")
    comfy = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["comfy"]
    sizes = {}
    for key in ("Icon", "Banner"):
        path = ROOT / comfy[key].split("/main/", 1)[1]
        assert path.stat().st_size < 500_000
        sizes[key] = Image.open(path).size
    assert sizes["Icon"] == (400, 400) and abs(sizes["Banner"][0] / sizes["Banner"][1] - 21 / 9) < 0.01

