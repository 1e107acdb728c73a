"""The noise schedule in stages: every timestep and every noise level belongs to exactly one."""
import pytest
import torch

from idea_engine.backends.noise_stages import stage_at, stage_bounds, stage_of

BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
KEPT = torch.cumprod(1 - BETAS, 0)
SIGMAS = ((1 - KEPT) / KEPT).sqrt().tolist()


@pytest.mark.parametrize("count", (1, 2, 3, 5, 7, 100))
def test_the_stages_are_equal_stretches_of_the_whole_schedule(count):
    stages = stage_of(torch.arange(1000), count, 1000)
    sizes = stages.bincount()
    assert len(sizes) == count and sizes.max() - sizes.min() <= 1
    assert (stages.diff() >= 0).all()


@pytest.mark.parametrize("count", (1, 2, 3, 5, 7, 100))
def test_a_timesteps_noise_level_is_in_the_timesteps_stage(count):
    bounds = stage_bounds(SIGMAS, count)
    assert [stage_at(sigma, bounds) for sigma in SIGMAS] == stage_of(torch.arange(1000), count, 1000).tolist()


def test_noise_levels_outside_the_schedule_are_in_the_outer_stages():
    bounds = stage_bounds(SIGMAS, 5)
    assert stage_at(0.0, bounds) == 0 and stage_at(1e6, bounds) == 4
