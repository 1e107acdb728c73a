"""Photographs from head to foot: learned from whole, and as a portrait; and what counts around a face."""
from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from idea_engine import train as train_module
from idea_engine.errors import BadImageError
from idea_engine.face_mask import face_mask
from idea_engine.methods import RECIPES, build
from idea_engine.photos import head_crops, prepare_masks, prepare_photos
from idea_engine.train import TrainConfig, _Run, train

HEIGHT, WIDTH = 300, 200


def photograph(unit: float, centre=(100.0, 60.0)):
    """A picture (300, 200, 3) with a mask of a face ``unit`` pixels between the eyes, and their landmarks' middle at ``centre``."""
    x, y = centre
    marks = torch.tensor([[x - unit / 2, y], [x + unit / 2, y], [x, y + 0.55 * unit], [x - 0.4 * unit, y + unit], [x + 0.4 * unit, y + unit]])
    box = torch.tensor([x - 1.1 * unit, y - unit, x + 1.1 * unit, y + 1.9 * unit])
    picture = torch.rand(HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(0))
    return picture, face_mask(box, marks, HEIGHT, WIDTH)


def test_the_head_of_a_full_length_photograph_is_cut_out_as_a_portrait():
    (small, its), (large, own) = photograph(12.0), photograph(45.0)
    (number, picture, mask), = head_crops([large, small], [own, its])
    assert number == 1 and picture.shape[0] == picture.shape[1] and picture.shape[:2] == mask.shape
    assert float(mask.sum()) == pytest.approx(float(its.sum()), rel=1e-5)  # the whole face is in it
    side = len(mask)
    rows = (mask > 0.5).any(1).nonzero().flatten()
    assert 0.3 < len(rows) / side < 0.5  # as large in it as a face is in a portrait
    assert abs(float(rows.float().mean()) / side - 0.5) < 0.1
    places = (small.unfold(0, side, 1).unfold(1, side, 1) == picture.permute(2, 0, 1)).all(-1).all(-1).all(-1)
    assert int(places.sum()) == 1  # a piece of the photograph as it is


def test_at_the_edge_the_cut_stays_inside():
    picture, mask = photograph(12.0, centre=(16.0, 20.0))
    (_, cut, where), = head_crops([picture], [mask])
    assert cut.shape[0] == cut.shape[1] and float(where.sum()) == pytest.approx(float(mask.sum()), rel=1e-5)


def test_an_empty_mask_or_one_of_another_size_is_left_to_those_who_say_what_is_wrong():
    picture, mask = photograph(12.0)
    assert head_crops([picture, picture], [torch.zeros(HEIGHT, WIDTH), mask[:50]]) == []
    with pytest.raises(BadImageError, match="Face mask 1 is empty"):
        train_module.prepare_masks([torch.zeros(HEIGHT, WIDTH)], [picture], 64)


def pictures_of(run):
    return len(run.latents) // 2


@pytest.mark.parametrize("recipe, pictures", [("balanced", 2), ("released", 1)])
def test_a_training_sees_the_head_and_the_whole(backend, enhance, monkeypatch, recipe, pictures):
    picture, mask = photograph(12.0)
    seen = []
    monkeypatch.setattr(train_module._Run, "execute", lambda self, *given: seen.append(self))
    train(backend, enhance(backend), [picture], TrainConfig(recipe=recipe, steps=1, resolution=64), masks=[mask])
    assert pictures_of(seen[0]) == pictures
    if pictures == 2:
        whole, head = (float(faces.mean()) for faces in seen[0].faces[:2])
        assert head > 3 * whole


def test_captions_go_with_their_photographs(backend, enhance, monkeypatch):
    (small, its), (large, own) = photograph(12.0), photograph(45.0)
    seen = []
    monkeypatch.setattr(train_module._Run, "execute", lambda self, *given: seen.append(self))
    config = TrainConfig(recipe="balanced", steps=1, resolution=64, captions=("on a beach", "in a forest"))
    train(backend, enhance(backend), [large, small], config, masks=[own, its])
    assert seen[0].captions == ("on a beach", "in a forest", "in a forest")


def test_hair_counts_in_the_loss_and_not_in_where_the_word_looks(backend, enhance):
    picture, mask = photograph(45.0)
    config = TrainConfig(recipe="balanced", steps=1, resolution=64)
    faces, heads = prepare_masks([mask], [picture], 64), prepare_masks([mask], [picture], 64, [torch.ones_like(mask)])
    assert heads.eq(1).all() and faces.mean() < 0.7
    made = {}
    for share in (0.0, 0.5):
        run = _Run(backend, enhance(backend), replace(config.resolved(), hair_share=share), config, prepare_photos([picture], 64, [mask]), build, faces)
        run.weigh(heads)
        made[share] = run
        assert torch.equal(run.faces, torch.cat([faces, faces.flip(2)]))
    assert torch.equal(made[0.0].weighed, made[0.0].faces)
    assert torch.equal(made[0.5].weighed, made[0.5].faces.clamp_min(0.5))


def test_our_own_recipes_weigh_hair_and_the_papers_do_not():
    assert {name for name, recipe in RECIPES.items() if recipe.hair_share} == {name for name, recipe in RECIPES.items() if recipe.relative}
