"""The recipe ``released`` against an independent reference of the released script.

The reference (`tests/support/released_reference.py`) shares the tiny model, the noise, the timesteps and the prompts with ours, and nothing else.
"""
from dataclasses import replace

import pytest
import torch

from idea_engine.methods.id_ea import RELEASED, build
from idea_engine.training.batch import draw_batch
from idea_engine.training.config import TrainConfig
from idea_engine.training.loop import _Run
from idea_engine.training.pictures import prepare_photos
from released_reference import BETA, Reference

STEPS, BATCH = 20, 4
TEMPLATES = ("a photo of a face of {tokens} person", "a close-up photo of {tokens} person", "{tokens}")


@pytest.mark.parametrize("anchor_weight, moved", [(RELEASED.anchor_weight, 1e-3), (0.0, 0.05)], ids=["released", "without-anchor"])
@pytest.mark.parametrize("any_backend", ["sd2", "sd2-v"], indirect=True)
def test_twenty_steps_agree_with_the_released_script(any_backend, enhance, photo, anchor_weight, moved):
    """At the script's λ the anchor all but holds the tokens of so small a model; without it they show that their own gradient agrees too."""
    assert RELEASED.anchor_weight == 8e-4
    backend = any_backend
    names = ("brad pitt", "ann lee", "tom hanks", "emma stone", "bo")
    enhanced = enhance(backend)
    config = TrainConfig(recipe="released", steps=STEPS, batch=BATCH, resolution=64, templates=TEMPLATES, seed=3)
    run = _Run(backend, enhanced, replace(config.resolved(), anchor_weight=anchor_weight), config, prepare_photos([photo], 64), build)
    reference = Reference(backend, enhanced.face, names, {k: v.clone() for k, v in run.module.state_dict().items()}, anchor_weight, BATCH)
    torch.testing.assert_close(reference.anchor, enhanced.anchor.rows["clip_h"], rtol=1e-5, atol=1e-5)

    expected = []
    for step in range(STEPS):
        batch = draw_batch(3, step, BATCH, len(run.latents), len(TEMPLATES), run.latents.shape[1:], 1000)
        prompts = [TEMPLATES[i].replace("{tokens}", "<v0><v1>") for i in batch.prompts]
        expected.append(reference.step(run.latents[batch.pictures], batch.noise, batch.timesteps, prompts))
    identity, report = run.execute(lambda event: None, None, 0.0)

    torch.testing.assert_close(torch.tensor(report.losses), torch.tensor(expected), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(identity.tokens["clip_h"], reference.table.detach()[reference.rows], rtol=1e-4, atol=1e-4)
    assert abs(identity.adapter.gate - BETA * torch.tanh(reference.adapter["gamma"]).item()) < 1e-4
    assert (identity.tokens["clip_h"] - enhanced.anchor.rows["clip_h"]).abs().max() > moved
