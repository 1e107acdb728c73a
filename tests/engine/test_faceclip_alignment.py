"""The alignment loss: small when the rows tell who is who, and something to learn from."""
import math

import pytest
import torch

from idea_engine.faceclip.alignment import Alignment, pairwise_sigmoid


def test_the_loss_is_a_question_of_yes_or_no_for_every_pair():
    ours, theirs = torch.eye(2), torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    scale, bias = torch.tensor(2.0).log(), torch.tensor(-1.0)
    no, half = lambda x: math.log1p(math.exp(x)), math.sqrt(0.5)
    yes = lambda x: math.log1p(math.exp(-x))
    expected = [yes(2 * 1 - 1) + no(2 * half - 1), no(2 * 0 - 1) + yes(2 * half - 1)]
    assert pairwise_sigmoid(ours, theirs, scale, bias).tolist() == pytest.approx(expected, rel=1e-5)


def test_two_pictures_of_one_person_both_count_as_right():
    same = torch.ones(2, 2, dtype=torch.bool)
    one = torch.ones(2, 4)
    scale, bias = torch.tensor(2.0), torch.tensor(0.0)
    assert (pairwise_sigmoid(one, one, scale, bias, same) < pairwise_sigmoid(one, one, scale, bias)).all()


def test_learning_it_tells_the_samples_apart_and_leaves_the_targets_alone():
    torch.manual_seed(0)
    fused = torch.randn(8, 5, 16)
    targets = {"face": torch.randn(8, 12, requires_grad=True), "text": torch.randn(8, 6), "image": torch.randn(8, 10)}
    module = Alignment(16, {name: value.shape[1] for name, value in targets.items()})
    scale, bias = (torch.nn.Parameter(torch.tensor(value)) for value in (2.66, -2.0))
    optimiser = torch.optim.Adam([*module.parameters(), scale, bias], 0.02)
    losses = []
    for _ in range(150):
        parts = module(fused, targets, scale, bias)
        assert {name: tuple(value.shape) for name, value in parts.items()} == {"face": (8,), "text": (8,), "image": (8,)}
        loss = sum(value.mean() for value in parts.values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0] and targets["face"].grad is None
    with torch.no_grad():
        for name, target in targets.items():
            told = module.readouts[name](fused.mean(1))
            cosine = torch.nn.functional.cosine_similarity(told[:, None], target[None], dim=-1)
            assert cosine.argmax(1).tolist() == list(range(8)), name
