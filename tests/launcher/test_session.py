"""A ComfyUI for a while: which one is taken, what it is given, and that nothing of it stays."""
import urllib.request
from pathlib import Path

import pytest

from launcher import session as sessions
from launcher.errors import LauncherError
from launcher.hosts import Host, HostSearch
from launcher.session import any_host, session

ANSWERS = """
import argparse, http.server
options = argparse.ArgumentParser()
options.add_argument("--port", type=int)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
http.server.HTTPServer(("127.0.0.1", options.parse_known_args()[0].port), Handler).serve_forever()
"""


@pytest.fixture
def host(tmp_path) -> Host:
    root = tmp_path / "ComfyUI"
    (root / "comfy").mkdir(parents=True)
    (root / "comfy" / "cli_args.py").write_text("", encoding="utf-8")
    (root / "main.py").write_text(ANSWERS, encoding="utf-8")
    return Host("1.0", root, "test")


def test_it_runs_with_the_packs_it_was_given_and_leaves_nothing(host, tmp_path):
    pack = tmp_path / "a pack"
    pack.mkdir()
    (pack / "__init__.py").write_text("1", encoding="utf-8")
    with session(host, packs={"A": pack}, prepare=lambda base: (base.root / "input" / "a.txt").write_text("b", encoding="utf-8")) as running:
        assert urllib.request.urlopen(running.process.address, timeout=30).status == 200
        assert (running.base.root / "custom_nodes" / "A" / "__init__.py").read_text(encoding="utf-8") == "1"
        assert (running.base.root / "input" / "a.txt").is_file()
    with pytest.raises(OSError):
        urllib.request.urlopen(running.process.address, timeout=5)
    assert not running.base.root.exists() and (pack / "__init__.py").is_file()


def test_a_folder_that_was_named_stays(host, tmp_path):
    with session(host, tmp_path / "base", packs={}) as running:
        pass
    assert running.base.root == tmp_path / "base" and running.process.log.is_file()


def test_the_newest_is_taken_or_the_one_that_is_named(monkeypatch):
    newest, older = (Host(version, Path(version), "test") for version in ("2.0", "1.0"))
    monkeypatch.setattr(sessions, "find_checkouts", lambda: HostSearch((newest, older), ()))
    monkeypatch.setattr(sessions, "pip_host_is_installed", lambda: False)
    assert any_host() == newest and any_host(older.id) == older
    with pytest.raises(LauncherError, match=f"no ComfyUI called comfyui-3.0. Found: {newest.id}, {older.id}"):
        any_host("comfyui-3.0")


def test_without_any_a_sentence_says_what_gets_one(monkeypatch):
    monkeypatch.setattr(sessions, "find_checkouts", lambda: HostSearch((), ()))
    monkeypatch.setattr(sessions, "pip_host_is_installed", lambda: True)
    assert any_host().root is None
    with pytest.raises(LauncherError, match="No ComfyUI was found. Run python quickstart.py once"):
        any_host(pip=False)
