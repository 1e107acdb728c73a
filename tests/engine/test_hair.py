"""Hair: what counts in the loss around a face."""
from __future__ import annotations

from dataclasses import replace

import torch

from idea_engine.faces.mask import face_mask
from idea_engine.methods import RECIPES, build
from idea_engine.training.loop import TrainConfig, _Run
from idea_engine.training.pictures import prepare_masks, prepare_photos

HEIGHT, WIDTH = 300, 200


def photograph(unit: float, centre=(100.0, 60.0)):
    """A picture (300, 200, 3) with a mask of a face ``unit`` pixels between the eyes, and their landmarks' middle at ``centre``."""
    x, y = centre
    marks = torch.tensor([[x - unit / 2, y], [x + unit / 2, y], [x, y + 0.55 * unit], [x - 0.4 * unit, y + unit], [x + 0.4 * unit, y + unit]])
    box = torch.tensor([x - 1.1 * unit, y - unit, x + 1.1 * unit, y + 1.9 * unit])
    picture = torch.rand(HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(0))
    return picture, face_mask(box, marks, HEIGHT, WIDTH)


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
