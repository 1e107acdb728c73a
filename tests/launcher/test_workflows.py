"""What GitHub runs: actions by their commit, and the host tests by one script that also runs by hand."""
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import command_line, hosts
from launcher.errors import LauncherError
from launcher.hosts import HostSearch, pip_host, pip_host_is_installed

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def workflow(name: str) -> str:
    return (ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_named_by_their_commit(path):
    used = re.findall(r"uses:\s*(\S+)", path.read_text(encoding="utf-8"))
    assert used and [action for action in used if not re.fullmatch(r"[\w-]+/[\w.-]+@[0-9a-f]{40}", action)] == []


def test_the_newest_release_is_tested_every_week_and_on_every_push_by_the_script():
    text = workflow("newest-comfyui.yml")
    assert re.search(r"push:\n\s+branches: \[main\]", text) and re.search(r'- cron: "\d+ \d+ \* \* \d"', text)
    assert re.findall(r"run:\s*(\S+)", text) == [".ci/newest-host"]
    script = ROOT / ".ci" / "newest-host"
    assert os.access(script, os.X_OK) or sys.platform == "win32"
    assert "quickstart.py test --newest-host tests/host" in script.read_text(encoding="utf-8")


def test_the_newest_host_alone_is_tested_on():
    """In a process of its own, as pytest is started."""
    done = subprocess.run([sys.executable, "-m", "pytest", "--newest-host", "--collect-only", "-q", "tests/host/test_hosts.py"], cwd=ROOT, capture_output=True, text=True)
    collected = set(re.findall(r"\[((?:comfyui|pip)-[^\]]+)\]", done.stdout))
    found = [*hosts.find_checkouts().found, *([pip_host()] if pip_host_is_installed() else [])]
    assert collected == {found[0].id}, done.stdout


def test_where_github_cannot_be_reached_the_newest_of_this_machine_stands_for_it(monkeypatch, capsys):
    monkeypatch.setattr(hosts, "github_is_reachable", lambda: False)
    monkeypatch.setattr(hosts, "find_checkouts", lambda: HostSearch((hosts.Host("0.33.0", ROOT, "here"),), ()))
    command_line.get_newest_release()
    assert "comfyui-0.33.0 (here), stands for the newest release" in capsys.readouterr().out
    monkeypatch.setattr(hosts, "find_checkouts", lambda: HostSearch((), ()))
    with pytest.raises(LauncherError, match="no ComfyUI was found here"):  # never the pip host instead, in silence
        command_line.get_newest_release()
