"""``pip install .`` brings the command line with everything it needs to run, and nothing of the nodes."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which a copy of the checkout has been installed; its dependencies are those of this environment."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("pyproject.toml", "README.md", "LICENSE", "__init__.py"):
        shutil.copy(ROOT / name, source)
    for name in ("idea_engine", "idea_cli", "portrait_world", "nodes", "tests", "launcher", "tools", "benchmarks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def test_only_the_engine_its_command_line_and_the_portrait_world_are_installed(installed):
    packages = {path.name for path in installed.iterdir() if path.is_dir() and not path.name.endswith(".dist-info")} - {"bin", "Scripts"}
    assert packages == {"idea_engine", "idea_cli", "portrait_world"}


def test_the_command_runs_from_anywhere(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    script = next(path for folder in ("bin", "Scripts") for path in (installed / folder).glob("idea-engine*"))
    command = [script] if sys.platform == "win32" else [sys.executable, script]  # installed scripts name the interpreter by a path that may be too long
    arguments = ["generate", "--model", "demo", "--prompt", "a photo of a person on a beach", "--steps", "2", "-o", "pictures"]
    done = subprocess.run([*command, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "pictures" / "0.png").read_bytes().startswith(b"\x89PNG")
