"""The soft face mask."""
import math
from dataclasses import replace

import pytest
import torch

from idea_engine.faces.mask import face_mask, with_hair

LANDMARKS = torch.tensor([[80.0, 90.0], [120.0, 90.0], [100.0, 112.0], [85.0, 132.0], [115.0, 132.0]])
BOX = torch.tensor([56.0, 50.0, 144.0, 160.0])


def test_the_features_are_inside_and_the_corners_outside():
    mask = face_mask(BOX, LANDMARKS, 200, 220)
    assert mask.shape == (200, 220) and mask.dtype == torch.float32
    assert mask.min() == 0.0 and mask.max() == 1.0
    assert all(mask[int(y), int(x)] > 0.99 for x, y in LANDMARKS)
    assert mask[0, 0] == mask[-1, -1] == mask[10, 100] == mask[100, 20] == 0.0


def test_the_edge_is_soft():
    mask = face_mask(BOX, LANDMARKS, 200, 220)
    assert ((mask > 0.05) & (mask < 0.95)).float().mean() > 0.02
    assert (mask[:, 1:] - mask[:, :-1]).abs().max() < 0.25


@pytest.mark.parametrize("degrees", [30, 90, 180])
def test_it_turns_with_the_eyes(degrees):
    angle, centre = math.radians(degrees), torch.tensor([128.0, 128.0])
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    moved = LANDMARKS - LANDMARKS.mean(0)
    square = torch.tensor([70.0, 70.0, 186.0, 186.0])  # the same for every turn
    upright = face_mask(square, moved + centre, 256, 256)
    turned = face_mask(square, moved @ turn.T + centre, 256, 256)
    ys, xs = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    points = torch.stack([xs, ys], -1) + 0.5 - centre
    back = (points @ turn + centre) / 128 - 1  # where each turned pixel came from
    expected = torch.nn.functional.grid_sample(upright[None, None], back[None], align_corners=False)[0, 0]
    assert (expected - turned).abs().max() < 0.05


def test_a_turned_head_keeps_the_width_of_its_box():
    profile = LANDMARKS.clone()
    profile[:, 0] = 100.0 + (profile[:, 0] - 100.0) * 0.2
    assert (face_mask(BOX, profile, 200, 220)[110] > 0.5).sum() > 60


@pytest.mark.parametrize("landmarks", [torch.full((5, 2), 100.0), LANDMARKS - 500.0])
def test_impossible_landmarks_still_give_a_finite_mask(landmarks):
    mask = face_mask(BOX, landmarks, 64, 48)
    assert torch.isfinite(mask).all() and mask.min() >= 0 and mask.max() <= 1


def test_hair_lies_around_the_face_and_above_it():
    """On people of the Portrait World: the head's mask holds nearly all of their hair, which the face's leaves out."""
    import numpy as np

    from portrait_world.drawing.portrait import face_box, landmarks, render
    from portrait_world.world.people import person
    from portrait_world.world.portrayal import Shot

    inside = {"face": [], "head": []}
    for index in range(200):
        who = person("validation", index)
        if who.hair not in ("short", "parted", "bob", "afro", "spiky", "bun"):
            continue
        shot = Shot()
        bald = render(replace(who, hair="bald"), shot)
        hair = torch.from_numpy((np.abs(render(who, shot).astype(int) - bald).sum(-1) > 60).astype(np.float32))
        if hair.sum() < 100:
            continue
        face = face_mask(torch.from_numpy(face_box(who, shot) * 128), torch.from_numpy(landmarks(who, shot) * 128), 128, 128)
        head = with_hair(face)
        assert (head >= face).all() and head.max() <= 1
        for name, mask in (("face", face), ("head", head)):
            inside[name].append(float((mask * hair).sum() / hair.sum()))
    assert len(inside["head"]) > 50
    assert sum(inside["head"]) / len(inside["head"]) > 0.75
    assert sum(inside["head"]) / len(inside["head"]) > sum(inside["face"]) / len(inside["face"]) + 0.3


def test_the_head_of_an_empty_mask_is_empty():
    assert not with_hair(torch.zeros(20, 30)).any()
