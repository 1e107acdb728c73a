"""The refit measurement: the other checkpoint (same shapes, other weights, the shipped model untouched), and who is learned on it from where."""
import math

import pytest
import torch

from portrait_world.pipeline import text_encoder, unet
from portrait_world.trials import refit_trial, trial
from portrait_world.trials.refit_trial import other_checkpoint


def apart(module, shipped):
    """Parameter → how far it is from the shipped one, in the shipped one's spreads."""
    own = dict(shipped.named_parameters())
    return {name: float((weight.float() - own[name]).std() / own[name].std()) for name, weight in module.named_parameters() if weight.ndim > 1}


def test_the_other_checkpoint_is_as_far_away_as_asked_in_every_matrix(shipped):
    backend = other_checkpoint(0.1)
    for module, original in ((backend.encoders["clip_l"], text_encoder()), (backend.unet, unet())):
        found = apart(module, original)
        assert found and 0.08 < min(found.values()) and max(found.values()) < 0.12


def test_at_no_distance_it_is_the_shipped_model(shipped):
    state, original = other_checkpoint(0.0).encoders["clip_l"].state_dict(), text_encoder().state_dict()
    assert all(torch.equal(state[key], original[key]) for key in original)


def test_the_same_seed_gives_the_same_checkpoint(shipped):
    one, two, other = (other_checkpoint(0.1, seed).unet.conv_in.weight for seed in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other)


@pytest.fixture
def short(monkeypatch):
    """The measurement with one prompt, one step in place of the recipe's own, and every training that it asks for."""
    asked = []

    def learn(*arguments, steps, **chosen):
        asked.append((steps, chosen))
        return trial.learn(*arguments, steps=steps or 1, **chosen)

    monkeypatch.setattr(refit_trial, "learn", learn)
    monkeypatch.setattr(refit_trial, "PROMPTS", trial.PROMPTS[:1])
    return asked


def test_every_row_is_a_training_of_its_own_and_only_the_refit_begins_elsewhere(shipped, short):
    rows = []
    found = refit_trial.measure([4], "test", 0.1, 2, rows.append)
    assert list(found) == rows and len(set(rows)) == 7
    assert all(math.isfinite(value) for columns in found.values() for pair in columns.values() for value in pair)
    old, other = trial.open_backend(), short[1][1]["backend"]
    assert [(steps, chosen["backend"] is old, chosen["begin"] is not None) for steps, chosen in short] == [
        (0, True, False), (2, False, True), (2, False, False), (0, False, False),
    ]
    assert other is not old and all(chosen["backend"] is other for _, chosen in short[1:])
    assert found["learned, old checkpoint"] != found["the old identity as it is"] and found["refit, 2 steps"] != found["anew, 2 steps"]
    assert refit_trial.markdown(found).count("\n") == 8
