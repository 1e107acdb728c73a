"""The benchmarks start, and what they measure is what is shipped: every recipe as it is trained, every number that is asked for."""
import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from idea_engine.methods import RECIPES
from tiny_pipelines import tiny_pipeline

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
_MODULES = {"__init__.py", "fresh_host.py", "result.py", "true_models.py", "sampling_diffusers.py"}  # imported by the others
SCRIPTS = sorted(path.name for path in BENCHMARKS.glob("*.py") if path.name not in _MODULES)


@pytest.fixture(autouse=True)
def found(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_starts(script, tmp_path):
    done = subprocess.run([sys.executable, str(BENCHMARKS / script), "--help"], capture_output=True, text=True, encoding="utf-8", cwd=tmp_path, timeout=300)
    assert done.returncode == 0 and script.removesuffix(".py") in done.stdout, done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def case(monkeypatch, tmp_path):
    """``training_case`` with a tiny pipeline in place of the true sizes."""
    import training_case

    monkeypatch.setattr(training_case, "pipeline", lambda shape, device, dtype: tiny_pipeline("sd1", tmp_path))
    return training_case


def options(**changed):
    return argparse.Namespace(**{**dict(case="ours", shape="sd15", device="cpu", dtype="float32", pixels=64, batch=2, rounds=1, recipe="fast"), **changed})


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_step_of_every_recipe_is_measured(case, recipe):
    assert case.measure(options(recipe=recipe))["weights_mb"] > 0


def test_our_step_and_the_released_one_take_turns(case):
    found = case.measure(options(case="time"))
    assert {name: len(values) for name, values in found["seconds"].items()} == {"ours": 1, "released": 1}


@pytest.mark.parametrize("family", ("sd1", "sdxl"))
def test_without_a_comfyui_sampling_is_measured_on_diffusers(monkeypatch, tmp_path, family):
    import sampling
    import true_models

    monkeypatch.setattr(true_models, "pipeline", lambda shape, device, dtype: tiny_pipeline(family, tmp_path))
    monkeypatch.setattr(sampling.hosts, "find_checkouts", lambda: argparse.Namespace(found=[], missing=[]))
    monkeypatch.setattr(sampling.hosts, "pip_host_is_possible", lambda: False)
    file = tmp_path / "sampling.json"
    monkeypatch.setattr(sys, "argv", ["sampling.py", "--pixels", "64", "--rounds", "1", "--json", str(file)])
    sampling.main()
    written = json.loads(file.read_text(encoding="utf-8"))
    assert all(written[name] > 0 for name in ("ratio_1", "ratio_2", "ratio_4", "ratio_stages"))


def test_everybody_has_one_turn_a_round_and_the_order_changes():
    from inside.turns import STAGES, take_turns, turns

    names, taken = turns(STAGES), []
    found = take_turns(names, 4, lambda name: taken.append(name) or len(taken))
    rounds = [tuple(taken[start:start + len(names)]) for start in range(0, len(taken), len(names))]
    assert rounds == [names[::-1], names] * 2
    assert all(taken[number - 1] == name for name, numbers in found.items() for number in numbers) and {len(numbers) for numbers in found.values()} == {4}
