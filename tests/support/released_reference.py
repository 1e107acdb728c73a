"""The released ID-EA script, written again from METHODS.md §1 on plain diffusers and transformers, the way the script does it.

The pseudo-tokens are rows of the embedding table, the whole table goes through AdamW and is then copied back but for those rows, the
covariance is a dense matrix. It shares nothing with the engine.
"""
from __future__ import annotations

import copy

import torch
from torch.nn.functional import mse_loss, scaled_dot_product_attention

BETA, ZETA = 0.4, 2e-5


class Reference:
    """One training of the released script.

    Args:
        backend: whose models it trains on; of one text encoder.
        start: random weights of the enhancer and the adapter, which both trainings begin with.
        batch: pictures a step; the learning rate grows with it.
        as_it_is: with what the script does to no effect: to_k and to_v are marked as trainable, and their gradients add up unread. It also
            takes the backend's models for itself; else it leaves them as they are, and its text encoder is a copy.
        keeps_graph: as the script does with ``retain_graph=True``: a step's graph lives until the next step's loss takes its place.
    """

    def __init__(self, backend, face, names, start, anchor_weight, batch, as_it_is=False, keeps_graph=False):
        self.anchor_weight, self.keeps_graph = anchor_weight, keeps_graph
        self.unet, self.vae, self.scheduler = backend.unet, backend.vae, backend.scheduler
        (key,) = backend.encoders
        self.tokenizer = copy.deepcopy(backend.tokenizers[key])
        self.encoder = backend.encoders[key] if as_it_is else copy.deepcopy(backend.encoders[key])
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
        self.vae.requires_grad_(False)
        self.loss = None
        if as_it_is:
            for name, parameter in self.unet.named_parameters():
                parameter.requires_grad_(name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")))
        with torch.no_grad():  # cross initialisation: output rows as input rows
            self.table[self.rows] = torch.stack(averages)
            self.anchor = self.encode("<v0><v1>")[0, 1:3].clone()
            self.table[self.rows] = self.anchor
            self.face = self.enhance({k.removeprefix("enhancer."): v for k, v in start.items() if k.startswith("enhancer.")}, face)
        self.others = self.table.detach().clone()
        adapter = {k.removeprefix("adapter."): v.clone().requires_grad_() for k, v in start.items() if k.startswith("adapter.")}
        self.adapter = adapter
        rate = 0.0015 * batch
        self.optimizer = torch.optim.AdamW([self.table, *adapter.values()], lr=rate, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-7)
        self.precision = torch.linalg.pinv(torch.cov(self.anchor.T) + ZETA * torch.eye(self.anchor.shape[1], device=self.anchor.device))

    def enhance(self, w, face):
        """METHODS §1.3 with the untrained enhancer: (2, 2d)."""
        query = linear(w, "to_q", linear(w, "expand", face)).repeat(2, 1)
        memory = linear(w, "to_kv", self.anchor)
        return linear(w, "out", attend({k.removeprefix("attention."): v for k, v in w.items()}, query, memory))

    def encode(self, prompts):
        ids = self.tokenizer(prompts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        return self.encoder(ids.to(self.table.device)).last_hidden_state

    def adapt(self, context):
        """METHODS §1.4, prompt by prompt."""
        extra = linear(self.adapter, "project", self.face)
        weights = {k.removeprefix("attention."): v for k, v in self.adapter.items()}
        joined = [torch.cat([y, extra]) for y in context]
        change = torch.stack([attend(weights, z, z)[: context.shape[1]] for z in joined])
        return context + BETA * torch.tanh(self.adapter["gamma"]) * change

    @torch.no_grad()
    def latents(self, images):
        """(B, H, W, 3) in 0..1 → latents; the script does so at every step."""
        return self.vae.encode((images.permute(0, 3, 1, 2) * 2 - 1).to(self.vae.dtype)).latent_dist.sample().float() * self.vae.config.scaling_factor

    def predict(self, noisy, timesteps, context):
        return self.unet(noisy.to(self.unet.dtype), timesteps, context.to(self.unet.dtype)).sample.float()

    def step(self, latents, noise, timesteps, prompts):
        context = self.adapt(self.encode(prompts))
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        target = noise if self.scheduler.config.prediction_type == "epsilon" else self.scheduler.get_velocity(latents, noise, timesteps)
        loss = mse_loss(self.predict(noisy, timesteps, context), target)
        deviation = self.table[self.rows] - self.anchor
        distance = torch.stack([(d @ self.precision @ d).clamp_min(1e-8).sqrt() for d in deviation]).mean()
        loss = loss + self.anchor_weight * distance
        self.optimizer.zero_grad()
        loss.backward(retain_graph=self.keeps_graph)
        self.loss = loss if self.keeps_graph else None
        self.optimizer.step()
        with torch.no_grad():
            keep = torch.ones(len(self.table), dtype=torch.bool, device=self.table.device)
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
