"""Hosts are looked for in a fixed order, and every place that holds none is named."""
import socket
import time

import pytest
from launcher import hosts
from launcher.errors import LauncherError


def comfyui(folder, version="0.9.9"):
    (folder / "comfy").mkdir(parents=True)
    for name in ("main.py", "nodes.py"):
        (folder / name).write_text("", encoding="utf-8")
    (folder / "requirements.txt").write_text("torch\n", encoding="utf-8")
    if version:
        (folder / "comfyui_version.py").write_text(f'__version__ = "{version}"\n', encoding="utf-8")
    return folder


@pytest.fixture
def bare_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(hosts.Path, "home", lambda: tmp_path / "home")
    monkeypatch.setattr(hosts, "CHECKOUT", tmp_path / "somewhere" / "pack")
    monkeypatch.setenv("IDEA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    return tmp_path


def test_a_bare_machine_has_none_and_every_place_is_named(bare_machine):
    search = hosts.find_checkouts()
    assert search.found == () and len(search.missing) == 4 and "$COMFYUI_PATH: the variable is not set" in search.missing


def test_the_order_is_the_pack_s_own_then_the_variable_then_the_default_workspace(bare_machine, monkeypatch):
    own = comfyui(bare_machine / "own", "1.0")
    monkeypatch.setattr(hosts, "CHECKOUT", own / "custom_nodes" / "pack")
    monkeypatch.setenv("COMFYUI_PATH", str(comfyui(bare_machine / "variable", "2.0")))
    comfyui(bare_machine / "home" / "comfy" / "ComfyUI", "3.0")
    assert [host.id for host in hosts.find_checkouts().found] == ["comfyui-1.0", "comfyui-2.0", "comfyui-3.0"]


def test_one_folder_found_twice_is_one_host(bare_machine, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(comfyui(bare_machine / "home" / "comfy" / "ComfyUI")))
    assert len(hosts.find_checkouts().found) == 1


def test_the_version_comes_from_pyproject_where_there_is_no_version_file(tmp_path):
    root = comfyui(tmp_path / "c", version=None)
    assert hosts.read_checkout(root, "").version == "unknown"
    (root / "pyproject.toml").write_text('[project]\nversion = "0.3.41"\n', encoding="utf-8")
    assert hosts.read_checkout(root, "").version == "0.3.41"


def test_a_chosen_folder_that_is_no_comfyui_is_refused(tmp_path):
    with pytest.raises(LauncherError, match="main.py"):
        hosts.find_checkouts(tmp_path)


def test_an_unreachable_github_is_noticed_in_time(monkeypatch):
    monkeypatch.setattr(hosts, "PATIENCE", 0.3)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: time.sleep(2) or socket.socket())  # a name server that does not answer
    started = time.monotonic()
    assert not hosts.github_is_reachable() and time.monotonic() - started < 1.5
