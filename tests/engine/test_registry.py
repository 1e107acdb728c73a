"""What the registry ships does nothing that its scanner, or a careful reader, would flag. Read with ast."""
import ast
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

import idea_engine
from launcher.requirements import read_lines
from tools.archive import shipped_files

ROOT = Path(idea_engine.__file__).parent.parent
CALLS = {
    "eval", "exec", "__import__", "import_module", "system", "popen", "Popen", "spawn", "fork", "forkpty", "startfile", "run_module", "run_path", "urlopen",
    "urlretrieve",
}
FAMILIES = ("create_subprocess", "create_connection", "open_connection", "start_server", "posix_spawn")  # asyncio's and the system's: beginnings
SYSTEM = re.compile(r"(exec|spawn)[lv]p?e?")  # os.execv, os.spawnlp …; inference code may well call something else "exec…"
MODULES = {
    "subprocess", "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "runpy", "pty", "multiprocessing",
    "socket", "socketserver", "ssl", "urllib", "urllib3", "http", "httpx", "requests", "aiohttp", "websocket", "websockets", "ftplib", "smtplib", "telnetlib",
    "xmlrpc", "webbrowser", "ctypes", "cffi", "importlib", "imp", "code", "codeop",
}
# What a script of the browser would use to reach another host, or to run text as code. The host's own `api` object needs none of them.
BROWSER = re.compile(
    r"\beval\s*\(|\bnew\s+Function\b|\bWebSocket\b|\bXMLHttpRequest\b|\bEventSource\b|\bsendBeacon\b|\bimportScripts\b|\bnew\s+(?:Shared)?Worker\b"
    r"|\bfetch\s*\(|(?:\bimport\s*\(?|\bfrom)\s*[\"'`](?:https?:)?//|\bimport\s*\((?!\s*[\"'])|\.(?:src|href|action)\s*=\s*[\"'`](?:https?:)?//"
)

pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="this checkout is no git repository")


def flagged(tree: ast.Module) -> list[str]:
    """What a scan finds in one file: calls by name or attribute, and imports."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr if isinstance(node.func, ast.Attribute) else ""
            own = name == "compile" and isinstance(node.func, ast.Name)  # re.compile is another
            found += [f"{name}()"] if name in CALLS or name.startswith(FAMILIES) or own else []
            if name == "load" and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name) and node.func.value.id == "torch":
                safe = any(k.arg == "weights_only" and isinstance(k.value, ast.Constant) and k.value.value is True for k in node.keywords)
                found += [] if safe else ["torch.load without weights_only=True"]
            found += ["allow_pickle" for k in node.keywords if k.arg == "allow_pickle" and not (isinstance(k.value, ast.Constant) and k.value.value is False)]
            if name in ("getattr", "attrgetter", "methodcaller"):
                found += [f"{name} {text}" for text in map(_text, node.args) if text in CALLS]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os" and SYSTEM.fullmatch(node.attr):
            found.append(f"os.{node.attr}")
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        found += [f"import {name}" for name in names if name and name.split(".")[0] in MODULES]
    return found


def _text(node: ast.expr) -> object:
    return node.value if isinstance(node, ast.Constant) else None


@pytest.mark.parametrize("text, finds", [
    ("os.execv(p, a)", 1), ("os.spawnlp(0, p)", 1), ("import runpy", 1), ("runpy.run_path(p)", 1), ("asyncio.create_subprocess_exec(p)", 1),
    ("asyncio.create_subprocess_shell(p)", 1), ("urlopen(a)", 1), ("import joblib", 1), ("numpy.load(p, allow_pickle=True)", 1), ("np.load(p, allow_pickle=x)", 1),
    ("numpy.load(p, allow_pickle=False)", 0), ("getattr(model, 'eval')()", 1), ("getattr(model, 'weight')", 0), ("operator.methodcaller('eval')", 1),
    ("executor.submit(f)", 0), ("model.execute()", 0), ("import httpx", 1), ("import multiprocessing.shared_memory", 1), ("asyncio.open_connection(h)", 1),
    ("eval('1')", 1), ("model.eval()", 1), ("import subprocess", 1), ("from urllib import request", 1), ("import os; os.system('x')", 1), ("torch.load(p)", 1),
    ("torch.load(p, weights_only=True)", 0), ("from .http import x", 0), ("model.train(False)", 0)])
def test_the_scan_sees_what_it_looks_for(text, finds):
    assert len(flagged(ast.parse(text))) == finds


def test_no_shipped_file_does_what_the_registry_flags():
    python = [name for name in shipped_files() if name.endswith(".py")]
    assert len(python) > 50
    assert {name: found for name in python if (found := flagged(ast.parse((ROOT / name).read_text(encoding="utf-8"))))} == {}


@pytest.mark.parametrize("text, reaches", [
    ("new WebSocket(a)", 1), ("new XMLHttpRequest()", 1), ('await import("https://a/b.js")', 1), ("import x from '//a/b.js'", 1), ("navigator.sendBeacon(a)", 1),
    ("fetch(a)", 1), ("eval (a)", 1), ("new Function(a)", 1), ("import(name)", 1), ("image.src = `https://a/b.png`", 1), ("new EventSource(a)", 1),
    ('import { app } from "../../../scripts/app.js"', 0), ("api.fetchApi('/idea/live')", 0), ("retrieval(a)", 0), ("image.src = url", 0)])
def test_the_scan_of_scripts_sees_what_it_looks_for(text, reaches):
    assert len(BROWSER.findall(text)) == reaches


def test_no_shipped_script_of_the_browser_asks_another_host():
    scripts = {name: (ROOT / name).read_text(encoding="utf-8") for name in shipped_files() if name.endswith((".js", ".mjs", ".html"))}
    assert scripts and {name: found for name, text in scripts.items() if (found := BROWSER.findall(text))} == {}


def test_everything_an_artist_expects_is_shipped():
    shipped = set(shipped_files())
    wanted = {"__init__.py", "LICENSE", "README.md", "requirements.txt", "requirements-face.txt", "pyproject.toml", *(f"locales/{lang}/nodeDefs.json" for lang in ("en", "zh", "ja", "ko"))}
    wanted |= {f"example_workflows/{path.name}" for path in (ROOT / "example_workflows").iterdir()}
    assert wanted <= shipped
    assert not [name for name in shipped if name.split("/")[0] in ("tests", "launcher", "tools", "idea_cli", "benchmarks", ".ci", ".github")]


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


def test_every_classifier_of_an_environment_is_one_the_registry_knows():
    """A single other one, and the registry takes none of them."""
    known = {"GPU :: NVIDIA CUDA", "GPU :: AMD ROCm", "GPU :: Intel Arc", "NPU :: Huawei Ascend", "GPU :: Apple Metal"}
    said = re.findall(r'"Environment :: (.+?)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert {"GPU :: NVIDIA CUDA", "GPU :: AMD ROCm", "GPU :: Apple Metal"} <= set(said) <= known
