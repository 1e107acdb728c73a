"""A condition takes its layers along through whatever nodes do to it; needs no host."""
import copy
import io
import pickle

import pytest
import torch

from bare_pack import bare_module

ANNA, BEN = "anna", "ben"


@pytest.fixture(scope="module")
def carried():
    with bare_module("nodes.host.carried") as module:
        yield module


def numbers(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def condition(carried, seed, who, at, weight=1.0, length=7, width=6):
    """A prompt of ``who`` at position ``at``, and what it is without them."""
    standing = torch.zeros(1, length)
    standing[0, at] = weight
    layers = {carried.Standing(who, 0): carried.spread(standing, width), carried.Without(frozenset({who})): numbers(seed + 100, 1, length, width)}
    return carried.carry(numbers(seed, 1, length, width), layers)


OTHER = numbers(7, 1, 7, 6)
WORK = {  # what nodes and hosts do → with which weight the person then stands where
    "average": (lambda c: torch.mul(c, 0.6) + torch.mul(OTHER, 0.4), {2: 0.6}),
    "interpolation": (lambda c: torch.lerp(c, OTHER, 0.25), {2: 0.75}),
    "concatenation": (lambda c: torch.cat((OTHER, c), 1), {9: 1.0}),
    "padding and cutting": (lambda c: torch.cat([c[:, :5], torch.zeros(1, 4, 6)], dim=1), {2: 1.0}),
    "repetition": (lambda c: c.repeat(1, 2, 1), {2: 1.0, 9: 1.0}),
    "weights of words": (lambda c: c * torch.tensor([1, 1, 1.3, 1, 1, 1, 1]).reshape(1, -1, 1).expand(c.shape), {2: 1.3}),
    "a mean that is restored": (lambda c: (c.mean() / (c * 2).mean()) * (c * 2), {2: 1.0}),
    "a deviation that is restored": (lambda c: (c.std() / (3 * c).std()) * (3 * c - (3 * c).mean()) + c.mean(), {2: 1.0}),
    "writing into rows": (lambda c: written(c.clone()), {2: 0.5}),
    "in place": (lambda c: c.clone().mul_(0.5).add_(1.0), {2: 0.5}),
    "another precision": (lambda c: c.to(torch.bfloat16).float(), {2: 1.0}),
    "a copy into new memory": (lambda c: torch.empty_like(c).copy_(c), {2: 1.0}),
    "shapes and back": (lambda c: c.reshape(7, 6).unsqueeze(0).transpose(0, 1).transpose(0, 1).contiguous(), {2: 1.0}),
    "parts and back": (lambda c: torch.stack([part for part in c.chunk(1)]).squeeze(0), {2: 1.0}),
    "a choice": (lambda c: torch.where(torch.arange(7)[None, :, None] < 4, c, OTHER), {2: 1.0}),
    "nothing left": (lambda c: c * 0.0 + OTHER, {}),
}


def written(made):
    made[0][2] = (made[0][2] - OTHER[0, 2]) * 0.5 + OTHER[0, 2]
    return made


@pytest.mark.parametrize("work", WORK)
def test_numbers_layers_and_weights_stay_true(carried, work):
    change, weights = WORK[work]
    whole = condition(carried, 1, ANNA, 2)
    without = carried.Without(frozenset({ANNA}))
    own, other = carried.plain(whole).clone(), whole.layers[without].clone()
    made = change(whole)
    assert isinstance(made, carried.CarriedCondition)
    assert torch.equal(carried.plain(made), change(own)), "the condition is not what it would be"
    assert torch.equal(made.layer(without), change(other)), "what it reads without her is not what that would be"
    found = made.weights(ANNA, 1)[0, :, 0]
    assert {at: pytest.approx(float(found[at]), rel=1e-5) for at in found.nonzero()[:, 0].tolist()} == weights
    assert torch.equal(carried.plain(whole), own) and torch.equal(whole.layers[without], other), "the original was changed"


def test_of_two_prompts_each_can_be_left_out_and_both(carried):
    anna, ben = condition(carried, 1, ANNA, 2), condition(carried, 2, BEN, 3)
    both = torch.cat([anna, ben], dim=1)
    left = {frozenset(absent): both.layer(carried.Without(frozenset(absent))) for absent in ((), (ANNA,), (BEN,), (ANNA, BEN))}
    parts = {who: (carried.plain(one), one.layers[carried.Without(frozenset({who}))]) for who, one in ((ANNA, anna), (BEN, ben))}
    for absent, layer in left.items():
        assert torch.equal(layer, torch.cat([parts[ANNA][ANNA in absent], parts[BEN][BEN in absent]], dim=1))
    assert both.nearest(frozenset({ANNA, "somebody else"})) == {ANNA}
    assert both.weights(BEN, 1, frozenset({ANNA}))[0, :, 0].nonzero().tolist() == [[10]]


def test_beside_a_prompt_of_nobody_it_stays_what_it_is(carried):
    batch = torch.cat([OTHER, condition(carried, 1, ANNA, 2)])
    assert torch.equal(batch.layer(carried.Without(frozenset({ANNA})))[0], OTHER[0])
    assert batch.weights(ANNA, 1)[..., 0].nonzero().tolist() == [[1, 2]]


@pytest.mark.parametrize("work", (
    lambda c: torch.nn.functional.linear(c, numbers(1, 3, 6)), lambda c: c.softmax(-1), lambda c: c @ numbers(1, 6, 6), lambda c: c > 0,
    lambda c: torch.from_numpy(c.numpy()), lambda c: c.argmax(-1), lambda c: c.view(torch.int32), lambda c: torch.nn.functional.layer_norm(c, (6,)),
), ids=range(8))
def test_what_cannot_be_followed_is_an_ordinary_tensor_with_the_right_numbers(carried, work):
    whole = condition(carried, 1, ANNA, 2)
    made = work(whole)
    assert type(made) is torch.Tensor and torch.equal(made, work(carried.plain(whole)))


def test_files_and_copies_hold_the_numbers_alone(carried):
    whole = condition(carried, 1, ANNA, 2)
    file = io.BytesIO()
    torch.save(whole, file)
    file.seek(0)
    for made in (pickle.loads(pickle.dumps(whole)), copy.deepcopy(whole), torch.load(file, weights_only=True)):
        assert type(made) is torch.Tensor and torch.equal(made, carried.plain(whole))


def test_many_people_do_not_make_endlessly_many_sets(carried):
    joined = torch.cat([condition(carried, seed, f"person {seed}", 2) for seed in range(12)], dim=1)
    assert len(joined.absences()) <= 40 and len(joined.mentions()) == 12
