"""Every command and the example of docs/cli.md run, as they stand there."""
import re
import shlex
import shutil
from pathlib import Path

import torch

from tiny_faceclip import tiny_published
from tiny_pipelines import tiny_pipeline

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", DOCS, re.S)


def test_the_commands_run_in_their_order(cli, people):
    for folder in ("example_workflows", "portrait_world/assets/face_pack"):
        shutil.copytree(ROOT / folder, cli.folder / folder)
    torch.save(tiny_published(), cli.folder / "face_clip_encoder.pt")
    commands = [line for block in blocks("bash") for line in block.splitlines()]
    install, *others = commands
    assert install == 'pip install ".[cli]"' and len(others) >= 6  # tests/cli/test_install.py
    for command in others:
        program, *arguments = shlex.split(command)
        assert program == "idea-engine"
        cli.run(*arguments)
    made = ("anna.safetensors", "pictures/1.png", "report/report.html", "looks/watched-20.png", "identities/ben.safetensors", "faceclip.safetensors", "check/report.html")
    for path in made:
        assert (cli.folder / path).is_file(), path
    (several,) = blocks("text")
    assert "-m idea_engine train" in several  # test_two_processes_share_the_people runs it


def test_the_example_runs(tmp_path, monkeypatch):
    from idea_engine.backends.diffusers import DiffusersBackend
    from idea_engine.identity.file import save_identity
    from tiny_identities import random_identity

    pipe = tiny_pipeline("sd1", tmp_path / "made")
    pipe.save_pretrained(tmp_path / "models" / "sd15")
    save_identity(random_identity(DiffusersBackend(pipe)), tmp_path / "anna")
    monkeypatch.chdir(tmp_path)
    (example,) = blocks("python")
    exec(compile(example, "docs/cli.md", "exec"), {})
    assert (tmp_path / "anna.png").read_bytes().startswith(b"\x89PNG")
