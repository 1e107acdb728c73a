"""The UNet's two dialects. (That the host computes the same numbers is tested in tests/host, inside a host.)"""
import pytest
import torch

from portrait_world.networks import noise
from portrait_world.networks.denoiser import HOST_CONFIG, build, host_key, host_state_dict


@pytest.fixture(scope="module")
def unet():
    pytest.importorskip("diffusers")
    return build().eval()


def test_every_parameter_has_one_name_in_the_host(unet):
    state = unet.state_dict()
    renamed = host_state_dict(state)
    assert len(renamed) == len(state)
    prefixes = ("time_embed.", "input_blocks.", "middle_block.", "output_blocks.", "out.")
    assert all(key.startswith(prefixes) for key in renamed)


def test_shapes_are_those_of_the_host_configuration(unet):
    renamed = host_state_dict(unet.state_dict())
    first = HOST_CONFIG["model_channels"]
    last = first * HOST_CONFIG["channel_mult"][-1]
    assert renamed["input_blocks.0.0.weight"].shape == (first, 4, 3, 3)
    assert renamed["middle_block.1.transformer_blocks.0.attn2.to_k.weight"].shape == (last, HOST_CONFIG["context_dim"])
    assert renamed["output_blocks.1.2.conv.weight"].shape == (last, last, 3, 3)


def test_a_foreign_key_is_refused():
    with pytest.raises(KeyError):
        host_key("conv_somewhere.weight")


def test_sampling_with_the_true_noise_returns_the_picture():
    torch.manual_seed(0)
    clean, start = torch.randn(1, 4, 16, 16).clamp(-3, 3), torch.randn(1, 4, 16, 16)

    def oracle(latents, timestep, condition):
        kept = noise.KEPT[timestep]
        return (latents - kept.sqrt() * clean) / (1 - kept).sqrt()

    made = noise.sample(oracle, torch.zeros(1, 77, 128), torch.zeros(1, 77, 128), start)
    assert torch.allclose(made, clean, atol=1e-3)
