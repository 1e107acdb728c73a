"""The environment is found again when nothing changed, and an interrupted install is taken up."""
import subprocess
import sys
import zipfile
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


def test_a_host_gets_what_it_asks_for_but_torch(tmp_path):
    (tmp_path / "requirements.txt").write_text("""torch
torchvision==0.1
Torch-something   # not torch
torchaudio>=2 # sound
comfyui-frontend-package==1.49.6

# no
-r more.txt
-c limits.txt
--extra-index-url https://example.org/simple
never_heard_of[x]>=1,\\
  <2 ; python_version > "3"
package @ https://example.org/package.zip#sha256=1
""", encoding="utf-8")
    (tmp_path / "more.txt").write_text("Pillow\ntorch>=2", encoding="utf-8")
    layer = checkout_host_layer(tmp_path, "own")
    assert layer.host == "own" and layer.lines == (
        "Torch-something", "torchaudio>=2", "comfyui-frontend-package==1.49.6", "Pillow", f"-c {tmp_path / 'limits.txt'}",
        "--extra-index-url https://example.org/simple", 'never_heard_of[x]>=1,   <2 ; python_version > "3"',
        "package @ https://example.org/package.zip#sha256=1")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """Packages of one module each, which says its version."""
    folder = tmp_path_factory.mktemp("wheels")

    def wheel(name, version, needs=()):
        metadata = "".join([f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", *(f"Requires-Dist: {need}\n" for need in needs)])
        with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
            file.writestr(f"{name}.py", f"VERSION = '{version}'\n")
            file.writestr(f"{name}-{version}.dist-info/METADATA", metadata)
            file.writestr(f"{name}-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            file.writestr(f"{name}-{version}.dist-info/RECORD", "")

    for version in ("1.0", "2.0"):
        wheel("frontend", version)
        wheel("torch", version)
    wheel("needy", "1.0", ("torch>=1", "frontend"))
    return folder


@pytest.fixture(scope="module")
def shared(wheels, tmp_path_factory):
    """A small shared environment, made by pip from the wheels: torch 1.0 and frontend 1.0; a function that adds to it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IDEA_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(wheels))
        patch.delenv("PIP_CONSTRAINT", raising=False)
        patch.setattr(environments, "pack_layers", lambda: (Layer("torch", ("torch==1.0",)), Layer("pack", ("frontend==1.0",))))
        patch.setattr(environments, "TORCH", Layer("torch", ("torch==1.0",)))
        yield lambda *layers: environments.prepare(layers, say=lambda text: None)


def imported(environment, *modules) -> list[str]:
    """What a process of an environment imports."""
    question = f"import {', '.join(modules)}; print(*({', '.join(f'{module}.VERSION' for module in modules)},))"
    done = subprocess.run([str(environment.python), "-c", question], capture_output=True, text=True, env=environment.variables())
    return done.stdout.split() or [done.stderr.strip().splitlines()[-1]]


def test_each_host_has_its_own_pins_and_nobody_else_s_change(shared):
    new, old = Layer("comfyui", ("frontend==2.0", "needy"), host="new"), Layer("comfyui", ("frontend==1.0",), host="old")
    environment = shared(new)
    shared(old)
    assert imported(environment.of_host("new"), "torch", "frontend", "needy") == ["1.0", "2.0", "1.0"]
    assert imported(environment.of_host("old"), "torch", "frontend") == imported(environment, "torch", "frontend") == ["1.0", "1.0"]
    assert "needy" in imported(environment.of_host("old"), "needy")[0] and "needy" in imported(environment, "needy")[0]
    assert environment.holds(new) and environment.holds(old)
    assert not list(environment.of_host("new").packages.glob("torch*"))  # found in the shared one, not installed twice


def test_a_host_does_not_move_torch(shared):
    with pytest.raises(LauncherError, match="pip could not install comfyui of other"):
        shared(Layer("comfyui", ("needy", "torch>=2"), host="other"))


def test_a_host_environment_that_was_half_made_is_made_anew(shared):
    environment = shared()
    (environment.of_host("half").folder / "lib").mkdir(parents=True)
    shared(Layer("comfyui", ("needy",), host="half"))
    assert imported(environment.of_host("half"), "needy", "frontend") == ["1.0", "1.0"]


def test_a_marker_counts_only_while_what_it_says_is_installed(shared):
    layer = Layer("comfyui", ("frontend==1.0",), host="old")
    environment = shared(layer)
    assert environment.holds(layer)  # from the shared environment
    assert environments._pip(environment, ["install", "frontend==2.0"], environment.folder / "log", lambda text: None) == 0
    assert not environment.holds(layer)
    shared(layer)
    assert environment.holds(layer) and imported(environment.of_host("old"), "frontend") == ["1.0"] and imported(environment, "frontend") == ["2.0"]


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
