"""The other checkpoint of the refit measurement: same shapes, other weights, the shipped model untouched."""
import torch
from portrait_world.pipeline import text_encoder, unet
from portrait_world.refit_trial import other_checkpoint


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
