"""What the backward pass keeps of a frozen UNet: less, with the same gradients, and no trace afterwards."""
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from idea_engine.backends.frozen_layers import lean
from idea_engine.methods import build
from idea_engine.training.loop import TrainConfig, _Run, draw_batch
from idea_engine.training.pictures import prepare_photos


def kept_while(work):
    """→ what ``work`` returns, and the bytes of distinct tensors that autograd keeps for its backward pass."""
    storages = {}

    def keep(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        return work(), sum(storages.values())


def gradients(backend, enhanced, photo, recipe, wrapper):
    config = TrainConfig(recipe=recipe, steps=1, batch=2, resolution=64)
    run = _Run(backend, enhanced, config.resolved(), config, prepare_photos([photo], 64), build)
    with torch.no_grad():
        run.module.adapter.gamma.fill_(0.5)
    batch = draw_batch(0, 0, 2, len(run.latents), len(run.config.templates), run.latents.shape[1:], backend.timesteps)
    with backend.training(), wrapper():
        losses, kept = kept_while(lambda: run.picture_losses(batch, slice(0, 2)))
        losses.sum().backward()
    trained = [p for part in run.recipe.trains for p in run.module.parts()[part]]
    return losses.detach(), [p.grad for p in trained], kept


@pytest.mark.parametrize("recipe", ["released", "paper"])
def test_gradients_are_those_of_plain_autograd_and_less_is_kept(any_backend, enhance, photo, recipe, monkeypatch):
    lean_losses, lean_gradients, lean_kept = gradients(any_backend, enhance(any_backend), photo, recipe, nullcontext)
    monkeypatch.setattr("idea_engine.backends.diffusers.lean", lambda unet: nullcontext())
    losses, plain, kept = gradients(any_backend, enhance(any_backend), photo, recipe, nullcontext)
    assert torch.equal(lean_losses, losses)
    assert any(g.abs().max() > 0 for g in plain)
    for one, other in zip(lean_gradients, plain, strict=True):
        # The engine may add up the gradients of a tensor that several layers read (SDXL's pooled text) in another order.
        assert (one - other).abs().max() <= 1e-5 * other.abs().max()
    assert lean_kept < kept


class Stack(nn.Module):
    """A residual block as both codes write it."""

    def __init__(self, stride=1, groups=1, dtype=torch.float32):
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 8, 3, stride=stride, padding=1, groups=groups), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 4, 1)
        ).to(dtype)
        self.requires_grad_(False)

    def forward(self, x):
        return self.layers(x)


def gradient_of(network, x):
    x = x.clone().requires_grad_()
    out, kept = kept_while(lambda: network(x))
    (out * torch.arange(out.numel(), device=out.device).reshape(out.shape).to(out)).sum().backward()
    return out.detach(), x.grad, kept


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stride, groups", [(1, 1), (2, 1), (1, 2)])
def test_a_residual_block_keeps_its_input_and_nothing_twice(stride, groups, dtype):
    torch.manual_seed(0)
    network, x = Stack(stride, groups, dtype), torch.randn(2, 8, 9, 9, dtype=dtype)
    out, plain, kept = gradient_of(network, x)
    with lean(network):
        lean_out, lean_gradient, lean_kept = gradient_of(network, x)
    assert torch.equal(lean_out, out) and torch.equal(lean_gradient, plain)
    assert lean_kept < 0.6 * kept


def test_a_normalisation_whose_output_or_input_was_overwritten_is_not_made_again():
    class Overwriting(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.act = nn.GroupNorm(2, 8), nn.SiLU()
            self.requires_grad_(False)

        def forward(self, x):
            return self.act(self.norm(x * 1.0).mul_(2.0))

    torch.manual_seed(0)
    network, x = Overwriting(), torch.randn(2, 8, 4, 4)
    plain = gradient_of(network, x)[1]
    with lean(network):
        assert torch.equal(gradient_of(network, x)[1], plain)


def test_without_gradients_it_is_the_layer_itself():
    network, x = Stack(), torch.randn(1, 8, 4, 4)
    expected = network(x)
    with lean(network), torch.no_grad():
        assert torch.equal(network(x), expected)


def test_layers_that_somebody_else_has_changed_or_that_learn_are_left_alone():
    network, x = Stack(), torch.randn(1, 8, 4, 4)
    own = lambda x: x * 3  # noqa: E731
    network.layers[1].forward = own
    network.layers[2].requires_grad_(True)
    with lean(network):
        assert network.layers[1].forward is own
        network(x.requires_grad_()).sum().backward()
        assert network.layers[2].weight.grad.abs().max() > 0
    assert network.layers[1].forward is own
    assert [name for name, module in network.named_modules() if "forward" in module.__dict__] == ["layers.1"]


@pytest.mark.parametrize("beside", ["weight_function", "weight_lowvram_function", "_v"])
def test_a_convolution_whose_weight_is_not_the_one_it_computes_with_is_left_alone(beside):
    """ComfyUI mixes LoRAs in while a layer runs, or keeps the weight elsewhere."""

    class Patched(nn.Conv2d):
        def forward(self, x):
            return self._conv_forward(x, self.weight + 1.0, self.bias)

    torch.manual_seed(0)
    network, x = nn.Sequential(Patched(8, 4, 3)).requires_grad_(False), torch.randn(1, 8, 6, 6)
    plain = gradient_of(network, x)[1]
    setattr(network[0], beside, [lambda weight: weight + 1.0])
    with lean(network):
        assert torch.equal(gradient_of(network, x)[1], plain)


def test_nothing_stays_after_an_error():
    network = Stack()
    with pytest.raises(RuntimeError, match="halt"), lean(network):
        raise RuntimeError("halt")
    assert not any("forward" in module.__dict__ for module in network.modules())


def test_a_network_that_adds_in_place_still_has_its_gradients():
    """As hosts of June 2024 do, under autograd's own remedy for it."""

    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = Stack(), Stack()
            self.first.layers[5] = nn.Conv2d(8, 8, 1)
            self.requires_grad_(False)

        def forward(self, x):
            x = x * 1.0
            hidden = self.first(x)
            x += hidden  # x is what the first normalisation was given
            hidden += x
            return self.second(hidden)

    torch.manual_seed(0)
    network, x = InPlace(), torch.randn(2, 8, 5, 5)

    def gradient():
        leaf = x.clone().requires_grad_()
        with torch.autograd.graph.allow_mutation_on_saved_tensors():
            out = network(leaf)
            (out * torch.arange(out.numel()).reshape(out.shape)).sum().backward()
        return leaf.grad

    plain = gradient()
    with lean(network):
        assert torch.equal(gradient(), plain)
