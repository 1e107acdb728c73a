"""Every usual place is looked at for hosts, and what holds none, or half of one, is named."""
import os
import re
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
    assert search.found == () and search.preferred is None and len(search.missing) == 4 and "$COMFYUI_PATH: the variable is not set" in search.missing


def test_every_comfyui_is_found_the_newest_first(bare_machine, monkeypatch):
    own = comfyui(bare_machine / "own", "0.9.0")
    monkeypatch.setattr(hosts, "CHECKOUT", own / "custom_nodes" / "pack")
    named = [comfyui(bare_machine / "a b", "0.33.0"), comfyui(bare_machine / "other", "0.3.41")]
    monkeypatch.setenv("COMFYUI_PATH", os.pathsep.join([str(named[0]), "", str(named[1])]))
    comfyui(bare_machine / "home" / "comfy" / "ComfyUI", "0.10.0")
    comfyui(bare_machine / "home" / "comfy" / "ComfyUI-0.3.64", "0.3.64")
    (bare_machine / "home" / "comfy" / "ComfyUI.zip").write_bytes(b"")
    comfyui(bare_machine / "cache" / "ComfyUI-0.3.75", "0.3.75")
    search = hosts.find_checkouts()
    assert [host.id for host in search.found] == [f"comfyui-{version}" for version in ("0.33.0", "0.10.0", "0.9.0", "0.3.75", "0.3.64", "0.3.41")]
    assert search.missing == () and "~/comfy/ComfyUI-0.3.64" in str(search.found[4])


def test_an_artist_who_names_none_means_the_one_the_pack_lies_in_then_the_one_the_variable_names(bare_machine, monkeypatch):
    comfyui(bare_machine / "home" / "comfy" / "ComfyUI-9.0", "9.0")
    comfyui(bare_machine / "home" / "comfy" / "ComfyUI", "3.0")
    assert hosts.find_checkouts().preferred.version == "3.0"
    monkeypatch.setenv("COMFYUI_PATH", str(comfyui(bare_machine / "variable", "2.0")))
    assert hosts.find_checkouts().preferred.version == "2.0"
    own = comfyui(bare_machine / "own", "1.0")
    monkeypatch.setattr(hosts, "CHECKOUT", own / "custom_nodes" / "pack")
    assert hosts.find_checkouts().preferred.version == "1.0"


def test_half_a_checkout_is_said(bare_machine, monkeypatch):
    half = comfyui(bare_machine / "home" / "comfy" / "ComfyUI-half")
    (half / "requirements.txt").unlink()
    (bare_machine / "home" / "comfy" / "ComfyUI-link").symlink_to(bare_machine / "gone")
    monkeypatch.setenv("COMFYUI_PATH", f"{bare_machine / 'nowhere'}{os.pathsep}{bare_machine}")
    search = hosts.find_checkouts()
    assert search.found == ()
    for sentence in (r"\$COMFYUI_PATH: .*nowhere is no folder", r"\$COMFYUI_PATH: .* is no ComfyUI: main.py, nodes.py, comfy, requirements.txt are missing",
                     r"~/comfy/ComfyUI\*: .*ComfyUI-half is only a part of a ComfyUI: requirements.txt is missing",
                     r"~/comfy/ComfyUI\*: .*ComfyUI-link is a link that leads nowhere"):
        assert any(re.fullmatch(sentence, said) for said in search.missing), (sentence, search.missing)


def test_one_folder_found_twice_is_one_host(bare_machine, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(comfyui(bare_machine / "home" / "comfy" / "ComfyUI")))
    assert len(hosts.find_checkouts().found) == 1


def test_two_of_one_version_are_two_hosts_with_environments_of_their_own(bare_machine):
    for name in ("ComfyUI", "ComfyUI-fork"):
        comfyui(bare_machine / "home" / "comfy" / name, "0.9.0")
    found = hosts.find_checkouts().found
    assert [host.id for host in found] == ["comfyui-0.9.0", "comfyui-0.9.0_2"] and len({host.environment_name for host in found}) == 2


def test_an_update_of_a_comfyui_keeps_its_environment(tmp_path):
    before = hosts.read_checkout(comfyui(tmp_path / "ComfyUI", "0.9.0"), "")
    asked = before.layers
    (tmp_path / "ComfyUI" / "requirements.txt").write_text("torch\nnew==1\n", encoding="utf-8")
    (tmp_path / "ComfyUI" / "comfyui_version.py").write_text('__version__ = "0.10.0"\n', encoding="utf-8")
    after = hosts.read_checkout(tmp_path / "ComfyUI", "")
    assert before.environment_name == after.environment_name and after.version == "0.10.0"
    assert asked != after.layers and after.layers[0].host == asked[0].host and after.layers[0].lines == ("new==1",)


def test_the_version_comes_from_pyproject_where_there_is_no_version_file(tmp_path):
    root = comfyui(tmp_path / "c", version=None)
    assert hosts.read_checkout(root, "").version == "unknown"
    (root / "pyproject.toml").write_text('[project]\nversion = "0.3.41"\n', encoding="utf-8")
    assert hosts.read_checkout(root, "").version == "0.3.41"


def test_a_folder_is_found_from_everywhere(tmp_path, monkeypatch):
    comfyui(tmp_path / "ComfyUI")
    monkeypatch.chdir(tmp_path)
    assert hosts.find_checkouts(hosts.Path("ComfyUI")).preferred.root == tmp_path / "ComfyUI"


def test_a_chosen_folder_that_is_no_comfyui_is_refused(tmp_path):
    with pytest.raises(LauncherError, match="main.py"):
        hosts.find_checkouts(tmp_path)


def test_an_unreachable_github_is_noticed_in_time(monkeypatch):
    monkeypatch.setattr(hosts, "PATIENCE", 0.3)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: time.sleep(2) or socket.socket())  # a name server that does not answer
    started = time.monotonic()
    assert not hosts.github_is_reachable() and time.monotonic() - started < 1.5
