"""How far a training step goes: by size, by width, whatever the batch, and never further than published textual inversion."""
from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from bare_pack import bare_module
from idea_engine.methods import RECIPES, build
from idea_engine.methods.rates import MEASURED_WIDTH, REACH, hold, root_mean_square, step_rate, width_factor
from idea_engine.training.loop import TrainConfig, _Run, train
from idea_engine.training.pictures import prepare_photos

OWN = ("balanced", "fast", "best")


def test_a_step_changes_what_is_read_by_the_same_share_at_every_width():
    """Measured: rows and projections as wide as SD's, one step of the gradient's signs, how much of what was read it moves."""
    g, shares = torch.Generator().manual_seed(0), []
    for width in (128, 768, 1024, 2048):
        row = torch.randn(width, generator=g)
        projection = torch.randn(320, width, generator=g) / width**0.5
        wanted = torch.randn(320, generator=g)
        step = 0.01 * root_mean_square(row) * width_factor(width) * torch.sign(wanted @ projection)
        shares.append(float(wanted @ projection @ step) / float((wanted @ wanted).sqrt()) / root_mean_square(projection @ row))
    assert max(shares) / min(shares) < 1.15
    assert shares[0] == pytest.approx(0.01 * math.sqrt(2 * MEASURED_WIDTH / math.pi), rel=0.15)


def test_where_the_rates_were_measured_nothing_changes():
    assert width_factor(MEASURED_WIDTH) == 1.0
    assert [round(1 / width_factor(width), 2) for width in (768, 1024, 2048)] == [2.45, 2.83, 4.0]
    for name, recipe in RECIPES.items():
        assert recipe.step_rate == recipe.lr * recipe.batch, name


@pytest.mark.parametrize("name", RECIPES)
def test_a_larger_batch_is_steadier_with_our_own_recipes_and_as_in_the_script_with_the_others(name):
    own = RECIPES[name]
    larger = replace(own, batch=4 * own.batch)
    assert larger.step_rate / own.step_rate == (1.0 if name in OWN else 4.0)
    said, = TrainConfig(recipe=name, batch=4 * own.batch).remarks()
    assert f"{4 * own.batch} pictures in a step instead of {own.batch}: a step goes {'as far and is steadier' if name in OWN else '4 times as far'}" in said
    assert TrainConfig(recipe=name).remarks() == ()


def test_a_step_goes_as_far_with_any_batch_where_it_was_measured_at_one():
    assert step_rate(0.006, 4, 4) == step_rate(0.006, 1, 4) == step_rate(0.006, 64, 4) == 0.006 * 4
    assert step_rate(0.0015, 16, 0) == 0.0015 * 16


def one_step(backend, enhanced, photo, recipe, **changes):
    config = TrainConfig(recipe=recipe, steps=1, resolution=64)
    chosen = replace(config.resolved().without_masks(), reads_expressions=False, warmup=0, weight_decay=0.0, **changes)
    run = _Run(backend, enhanced, chosen, config, prepare_photos([photo], 64), build)
    with backend.training():
        run._step()
    return run


def test_every_encoder_moves_by_its_own_size(any_backend, enhance, photo):
    enhanced = enhance(any_backend)
    rows = {key: rows * (10.0 if number else 1.0) for number, (key, rows) in enumerate(enhanced.anchor.rows.items())}
    run = one_step(any_backend, replace(enhanced, anchor=replace(enhanced.anchor, rows=rows)), photo, "balanced")
    for key, width in any_backend.family.encoders.items():
        moved = float((run.module.tokens[key] - run.module.start[key]).detach().abs().max())
        expected = run.recipe.step_rate * run.recipe.part_lr["tokens"] * width_factor(width) * root_mean_square(run.module.start[key])
        assert moved == pytest.approx(expected, rel=0.05)
    rate = run.recipe.step_rate * width_factor(any_backend.family.context_width)
    for number, key in enumerate(any_backend.family.encoders):
        size = root_mean_square(rows[key])
        # Adam's first step is nearly the rate, wherever there is a gradient.
        assert float(run.module.endings[key].detach().abs().max()) == pytest.approx(2.0 * rate * size, rel=0.05)
        for own in (run.module.key_value.own_keys[number], run.module.key_value.own_values[number]):
            assert float(own.detach().abs().max()) == pytest.approx(rate * size, rel=0.05)


def test_what_went_too_far_is_brought_back_and_nothing_else_moves():
    start = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    rows = start + torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
    rows[1] = start[1] + 3 * REACH * start[1].flip(0)
    before = rows.clone()
    hold(rows, start)
    assert torch.equal(rows[0], before[0]) and torch.equal(rows[2], before[2])
    assert float((rows[1] - start[1]).norm()) == pytest.approx(REACH * float(start[1].norm()), rel=1e-4)


def test_no_training_takes_a_word_further_than_published_ones(backend, enhance, photo):
    run = one_step(backend, enhance(backend), photo, "balanced", lr=1e3)
    for key, rows in run.module.tokens.items():
        start = run.module.start[key]
        far = (rows - start).detach().norm(dim=1) / start.norm(dim=1)
        assert float(far.max()) == pytest.approx(REACH, rel=1e-3)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_whether_it_reads_the_face(backend, enhance, photo, name):
    """Two faces and two seeds of the enhancer: what is learned is the same exactly where the recipe says so."""
    enhanced = enhance(backend)
    other = replace(enhanced, face=enhanced.face.flip(0), seed=enhanced.seed + 5)
    config = TrainConfig(recipe=name, steps=2, batch=1, resolution=64)
    one, two = (train(backend, start, [photo], config)[0] for start in (enhanced, other))
    parts = [(one.tokens, two.tokens), (one.key_offsets, two.key_offsets), (one.value_offsets, two.value_offsets)]
    parts += [(one.adapter.attention, two.adapter.attention)] if one.adapter else []
    same = all(torch.equal(first[key], second[key]) for first, second in parts for key in first)
    assert same != config.resolved().reads_face


@pytest.mark.parametrize("family, prediction, side", [("sd1", "EPS", 512), ("sd2", "EPS", 512), ("sd2", "V_PREDICTION", 768), ("sdxl", "EPS", 1024)])
def test_the_training_pictures_are_as_large_as_what_the_model_was_trained_at(family, prediction, side):
    backend = SimpleNamespace(family=SimpleNamespace(name=family), prediction=prediction)
    with bare_module("nodes.learning") as learning:
        assert learning.training_side(backend, 0) == side and learning.training_side(backend, 384) == 384
