"""The environment is found again when nothing changed, and an interrupted install is taken up."""
import subprocess
import sys
from pathlib import Path

import pytest
from launcher import environment as environments
from launcher.cache import cache_folder, locked
from launcher.environment import Environment, environment_key
from launcher.errors import LauncherError
from launcher.requirements import Layer, checkout_host_layer, pack_layers, read_lines

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IDEA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pip(monkeypatch):
    """Pip without a network: notes what it is asked and gives the exit codes it is told to."""
    asked, codes = [], []
    monkeypatch.setattr(environments, "_pip", lambda environment, arguments, log, say: asked.append(arguments) or (codes.pop(0) if codes else 0))
    monkeypatch.setattr(environments, "_last_error", lambda log: "ERROR: no such thing")
    return asked, codes


def test_the_cache_lies_where_the_variable_says(cache):
    assert cache_folder() == cache


@pytest.mark.parametrize("platform, variable, tail", [("linux", "XDG_CACHE_HOME", "id-ea"), ("win32", "LOCALAPPDATA", "id-ea")])
def test_the_cache_lies_in_the_systems_own_place(monkeypatch, tmp_path, platform, variable, tail):
    monkeypatch.delenv("IDEA_CACHE", raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setattr(sys, "platform", platform)
    assert cache_folder() == tmp_path / tail


def test_the_key_changes_with_the_requirements_and_not_otherwise():
    one, other = (Layer("a", ("x>=1",)),), (Layer("a", ("x>=2",)),)
    assert environment_key(one) == environment_key((Layer("a", ("x>=1",)),)) != environment_key(other)
    assert f"python{sys.version_info.major}.{sys.version_info.minor}-" in environment_key(one)


def test_a_second_call_installs_nothing(cache, pip):
    asked, _ = pip
    first = environments.prepare(say=lambda text: None)
    count = len(asked)
    assert environments.prepare(say=lambda text: None) == first and len(asked) == count > 0


def test_an_install_that_failed_goes_on_with_the_layer_that_failed(cache, pip):
    asked, codes = pip
    codes += [0, 1, 1]  # torch goes well, the pack's requirements fail twice
    with pytest.raises(LauncherError, match="no such thing.*goes on from here"):
        environments.prepare(say=lambda text: None)
    asked.clear()
    environment = environments.prepare(say=lambda text: None)
    assert "insightface>=2" in asked[0]
    assert all(environment.holds(layer) for layer in pack_layers())


def test_a_half_made_environment_is_made_anew(cache, pip):
    folder = cache / "environments" / environment_key(pack_layers())
    (folder / "bin").mkdir(parents=True)
    (folder / "rubbish").write_text("", encoding="utf-8")
    environment = environments.prepare(say=lambda text: None)
    assert not (folder / "rubbish").exists() and environment.python.exists()


def test_a_layer_added_later_leaves_the_others(cache, pip):
    asked, _ = pip
    environments.prepare(say=lambda text: None)
    asked.clear()
    environments.prepare((Layer("more", ("colour",)),), say=lambda text: None)
    assert len(asked) == 1 and "colour" in asked[0] and "torch" in asked[0]  # torch goes along so that pip leaves it as it is


def test_torchaudio_is_left_out_of_a_checkouts_requirements(tmp_path):
    (tmp_path / "requirements.txt").write_text("torch\ntorchaudio>=2 # sound\ntorchaudio\n\n# no\nPillow\n", encoding="utf-8")
    assert checkout_host_layer(tmp_path).lines == ("torch", "Pillow")


def test_two_processes_do_not_hold_one_lock(tmp_path):
    code = ("import importlib.util, sys, pathlib; s = importlib.util.spec_from_file_location('launcher', sys.argv[1] + '/launcher/__init__.py', "
            "submodule_search_locations=[sys.argv[1] + '/launcher']); sys.modules['launcher'] = importlib.util.module_from_spec(s); "
            "from launcher.cache import locked\nwith locked(pathlib.Path(sys.argv[2]), waiting=lambda: print('waits', flush=True)): print('has it')")
    with locked(tmp_path / "lock"):
        other = subprocess.Popen([sys.executable, "-c", code, str(ROOT), str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True)
        assert other.stdout.readline() == "waits\n"
    assert other.communicate(timeout=20)[0] == "has it\n"


def test_the_commands_of_the_environment_come_first_on_its_path(tmp_path):
    variables = Environment(tmp_path).variables()
    assert variables["PATH"].startswith(str(Environment(tmp_path).python.parent)) and "PYTHONPATH" not in variables


def test_the_registry_and_pip_read_the_same_requirements():
    try:
        import tomllib
    except ImportError:
        pytest.skip("Python 3.10 cannot read TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert tuple(project["dependencies"]) == read_lines(ROOT / "requirements.txt")
