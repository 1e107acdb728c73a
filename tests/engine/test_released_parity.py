"""The recipe ``released`` against an independent reference of the released script.

The reference is written from METHODS.md §1 on plain diffusers and transformers, the way the script does it: the pseudo-tokens are rows
of the embedding table, the whole table goes through AdamW and is then copied back but for those rows, the covariance is a dense matrix. It
shares the tiny model, the noise, the timesteps and the prompts with ours, and nothing else.
"""
import copy
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import mse_loss, scaled_dot_product_attention

from idea_engine.methods.id_ea import RELEASED, build
from idea_engine.photos import prepare_photos
from idea_engine.batch import draw_batch
from idea_engine.train import _Run
from idea_engine.train_config import TrainConfig

STEPS, BATCH = 20, 4
BETA, ZETA = 0.4, 2e-5
TEMPLATES = ("a photo of a face of {tokens} person", "a close-up photo of {tokens} person", "{tokens}")


class Reference:
    """One training of the released script."""

    def __init__(self, backend, face, names, start, anchor_weight):
        """``start``: random weights of the enhancer and the adapter, which both trainings begin with."""
        self.anchor_weight = anchor_weight
        self.unet, self.scheduler = backend.unet, backend.scheduler
        self.tokenizer = copy.deepcopy(backend.tokenizers["clip_h"])
        self.encoder = copy.deepcopy(backend.encoders["clip_h"])
        table = self.encoder.get_input_embeddings().weight.data
        spelled = [self.tokenizer(name, add_special_tokens=False).input_ids for name in names]
        averages = [table[[ids[i] for ids in spelled if len(ids) > i]].mean(0) for i in range(2)]
        self.tokenizer.add_tokens(["<v0>", "<v1>"])
        self.encoder.resize_token_embeddings(len(self.tokenizer), mean_resizing=False)
        self.table = self.encoder.get_input_embeddings().weight
        self.rows = self.tokenizer.convert_tokens_to_ids(["<v0>", "<v1>"])
        self.encoder.requires_grad_(False)
        self.table.requires_grad_(True)
        self.unet.requires_grad_(False)
        with torch.no_grad():  # cross initialisation: output rows as input rows
            self.table[self.rows] = torch.stack(averages)
            self.anchor = self.encode("<v0><v1>")[0, 1:3].clone()
            self.table[self.rows] = self.anchor
            self.face = self.enhance({k.removeprefix("enhancer."): v for k, v in start.items() if k.startswith("enhancer.")}, face)
        self.others = self.table.detach().clone()
        adapter = {k.removeprefix("adapter."): v.clone().requires_grad_() for k, v in start.items() if k.startswith("adapter.")}
        self.adapter = adapter
        rate = 0.0015 * BATCH
        self.optimizer = torch.optim.AdamW([self.table, *adapter.values()], lr=rate, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-7, foreach=False)
        self.precision = torch.linalg.pinv(torch.cov(self.anchor.T) + ZETA * torch.eye(self.anchor.shape[1]))

    def enhance(self, w, face):
        """METHODS §1.3 with the untrained enhancer: (2, 2d)."""
        query = linear(w, "to_q", linear(w, "expand", face)).repeat(2, 1)
        memory = linear(w, "to_kv", self.anchor)
        return linear(w, "out", attend({k.removeprefix("attention."): v for k, v in w.items()}, query, memory))

    def encode(self, prompt):
        ids = self.tokenizer(prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        return self.encoder(ids).last_hidden_state

    def adapt(self, context):
        """METHODS §1.4, prompt by prompt."""
        extra = linear(self.adapter, "project", self.face)
        weights = {k.removeprefix("attention."): v for k, v in self.adapter.items()}
        joined = [torch.cat([y, extra]) for y in context]
        change = torch.stack([attend(weights, z, z)[: context.shape[1]] for z in joined])
        return context + BETA * torch.tanh(self.adapter["gamma"]) * change

    def step(self, latents, noise, timesteps, prompts):
        context = self.adapt(torch.cat([self.encode(prompt) for prompt in prompts]))
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        target = noise if self.scheduler.config.prediction_type == "epsilon" else self.scheduler.get_velocity(latents, noise, timesteps)
        loss = mse_loss(self.unet(noisy, timesteps, context).sample, target)
        deviation = self.table[self.rows] - self.anchor
        distance = torch.stack([(d @ self.precision @ d).clamp_min(1e-8).sqrt() for d in deviation]).mean()
        loss = loss + self.anchor_weight * distance
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            keep = torch.ones(len(self.table), dtype=torch.bool)
            keep[self.rows] = False
            self.table[keep] = self.others[keep]
        return loss.item()


def linear(w, name, x):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def attend(w, query, memory, heads=8):
    wq, wk, wv = w["in_proj_weight"].chunk(3)
    bq, bk, bv = w["in_proj_bias"].chunk(3)
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(0, 1) for x in (query @ wq.T + bq, memory @ wk.T + bk, memory @ wv.T + bv))
    return linear(w, "out_proj", scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1))


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
    reference = Reference(backend, enhanced.face, names, {k: v.clone() for k, v in run.module.state_dict().items()}, anchor_weight)
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
