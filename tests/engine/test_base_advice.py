"""What a check of a base model advises, and how the recipes follow it."""
from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

from idea_engine.errors import EvaluationError
from idea_engine.judging.base_advice import RATES, RateResult, advice_json, advise, advised_rate, base_hash
from idea_engine.methods import RECIPES
from idea_engine.training.loop import TrainConfig

BASE = "0123456789abcdef"


def results(*figures, copies=0.0):
    return [RateResult(rate, likeness, prompt, copies, 1.0) for rate, (likeness, prompt) in zip(RATES, figures)]


@pytest.mark.parametrize("figures, rate, says", [
    ([(0.3, 0.95), (0.6, 0.9), (0.62, 0.7)], 1.0, "its rate fits"),
    ([(0.59, 0.9), (0.6, 0.9), (0.62, 0.89)], 1.0, "its rate fits"),  # within what another seed gives
    ([(0.6, 0.9), (0.6, 0.5), (0.4, 0.2)], 0.5, "too hot"),
    ([(0.1, 0.95), (0.3, 0.93), (0.6, 0.9)], 2.0, "too cold"),
    ([(0.0, 0.9), (-0.1, 0.9), (0.3, 0.0)], 1.0, "no rate made the person"),
])
def test_a_rate_fits_is_too_hot_or_too_cold(figures, rate, says):
    advice = advise("fast", results(*figures))
    assert advice.rate == rate and says in advice.says and advice.says.startswith("fast: ")


def test_a_loss_that_was_not_finite_is_too_hot():
    tried = results((0.5, 0.9), (0.0, 0.0), (0.0, 0.0))
    tried[1] = RateResult(1.0, 0.9, 0.9, 0.0, 1.0, finite=False)
    advice = advise("best", tried)
    assert advice.rate == 0.5 and "too hot" in advice.says and "not finite" in advice.says


def test_a_copy_is_worth_half():
    assert results((0.6, 0.9), copies=1.0)[0].worth == pytest.approx(0.5 * 0.6 * 0.9)


def test_without_the_recipes_own_rate_nothing_is_advised():
    with pytest.raises(EvaluationError, match="do not hold its own"):
        advise("fast", [RateResult(0.5, 0.5, 0.5, 0.0, 1.0)])


def unet(seed: int = 0, prefix: str = "down_blocks"):
    g = torch.Generator().manual_seed(seed)
    names = [f"{prefix}.{i}.attn2.{part}.weight" for i in range(3) for part in ("to_k", "to_v", "to_q")]
    return {name: torch.randn(8, 16, generator=g) for name in names}


def test_a_base_has_one_name_whatever_its_weights_are_called_and_in_what_precision():
    diffusers, host = unet(), {name.replace("down_blocks", "input_blocks"): value for name, value in reversed(unet().items())}
    assert base_hash(diffusers.items()) == base_hash(host.items())
    half = {name: value.half() for name, value in unet().items()}
    assert base_hash(half.items()) == base_hash({name: value.bfloat16() for name, value in half.items()}.items())
    assert base_hash(unet(1).items()) != base_hash(diffusers.items())
    queries = {name: value + 1 if "to_q" in name else value for name, value in diffusers.items()}
    assert base_hash(queries.items()) == base_hash(diffusers.items())


def keep(folder: Path, rate: float, **changes):
    made = {"fast": (advise("fast", results((0.1, 0.9), (0.3, 0.9), (0.6, 0.9))), results((0.1, 0.9), (0.3, 0.9), (0.6, 0.9)))}
    kept = {**json.loads(advice_json(BASE, "sd1", made, {"width": 768})), **changes}
    kept["recipes"]["fast"]["rate"] = rate
    (folder / f"{BASE}.json").write_text(json.dumps(kept), encoding="utf-8")


def test_what_is_kept_is_followed_and_said(tmp_path):
    keep(tmp_path, 2.0)
    assert advised_rate([tmp_path / "nowhere", tmp_path], BASE, "fast") == 2.0
    assert advised_rate([tmp_path], BASE, "best") == 1.0 and advised_rate([tmp_path], "another", "fast") == 1.0
    followed = TrainConfig(recipe="fast", base_rate=2.0)
    assert followed.resolved().lr == 2 * RECIPES["fast"].lr and followed.resolved().refining_lr == 2 * RECIPES["fast"].refining_lr
    assert followed.remarks() == ("at 2 times the recipe's rate, as a check of this base model advises",)
    own = TrainConfig(recipe="fast", base_rate=2.0, lr=0.01)
    assert own.resolved().lr == 0.01 and own.remarks() == ()


@pytest.mark.parametrize("change", [
    lambda path: path.write_text("[]"), lambda path: path.write_text("{"), lambda path: path.write_bytes(b"\xff\xfe"), lambda path: path.write_text("x" * 2_000_000),
    lambda path: path.write_text(path.read_text().replace('"base"', '"bass"')), lambda path: path.write_text(path.read_text().replace(BASE, "0" * 16)),
    lambda path: path.write_text(path.read_text().replace('"rate": 2.0, "says"', '"rate": 1e9, "says"')), lambda path: path.write_text("[" * 100_000),
    lambda path: path.write_text(path.read_text().replace('"rate": 2.0, "says"', '"rate": 1' + "0" * 400 + ', "says"')),
    lambda path: path.write_text(path.read_text().replace(f'"{BASE}"', '"\\u001b[2J"').replace('"rate": 2.0, "says"', '"rate": "\\u001b[2J", "says"')),
])
def test_a_damaged_file_is_no_advice(tmp_path, change, caplog):
    keep(tmp_path, 2.0)
    change(tmp_path / f"{BASE}.json")
    with caplog.at_level(logging.WARNING):
        assert advised_rate([tmp_path], BASE, "fast") == 1.0
    assert "no usable advice" in caplog.text and "idea-engine check" in caplog.text and "\x1b" not in caplog.text
