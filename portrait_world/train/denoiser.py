"""Trains the denoiser: noise prediction on the latents, fresh captions every time, the text encoder frozen.

The encoder stays as text.py left it. Trained along, it forgot the names within 2,500 steps: long before the denoiser asks
for them, Adam turns their tiny gradients into full steps (measured: hair known by name fell from 1.00 to .13).
"""
from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..networks import noise as schedule_of_noise
from ..networks.denoiser import build
from ..tokenizer import tokenize
from . import text
from .captioned import Captioned
from .latents import latents
from .session import Schedule, Session

SCHEDULE = Schedule(steps=11000, rate=1.2e-3, warmup=100, average=0.9985, cooldown=0.4, weight_decay=1e-3, seed=6, save_every=250)
BATCH = 32
EMPTY_SHARE = 0.1  # captions dropped, for classifier-free guidance


def session(schedule: Schedule = SCHEDULE) -> Session:
    """The (resumed) session of the UNet."""
    from diffusers.models.attention_processor import AttnProcessor

    torch.manual_seed(schedule.seed)
    unet = build()
    unet.set_attn_processor(AttnProcessor())  # plain products: half the time of the fused kernel's backward on a CPU
    _split_gates(unet)
    return Session("denoiser", {"unet": unet}, schedule)


def train(schedule: Schedule = SCHEDULE) -> Session:
    """Train (or go on training); returns the session with averaged weights."""
    encoder = text.train().requires_grad_(False)  # before the session, whose random state must be the last one set
    made = session(schedule)
    unet = made.modules["unet"]
    store = latents()
    captioned = Captioned(made.rng)

    def loss() -> tuple[Tensor, dict[str, float]]:
        rows = captioned.draw(BATCH)
        clean = store[torch.from_numpy(rows)].float()
        timesteps = torch.randint(0, schedule_of_noise.STEPS, (BATCH,))
        noise = torch.randn_like(clean)
        ids = tokenize([captioned.caption(row, EMPTY_SHARE) for row in rows])
        with torch.autocast("cpu", torch.bfloat16):
            predicted = unet(schedule_of_noise.add_noise(clean, noise, timesteps), timesteps, encoder(ids)).sample
        errors = ((predicted.float() - noise) ** 2).mean((1, 2, 3))
        value = (errors * schedule_of_noise.loss_weights(timesteps)).mean()
        return value, {"plain": float(errors.detach().mean())}

    made.run(loss)
    made.averaged()
    return made


def _split_gates(unet) -> None:
    """Compute the two halves of every gated activation as two products: the same numbers, without a copy each way."""
    from diffusers.models.activations import GEGLU

    def gated(layer, hidden: Tensor) -> Tensor:
        weight, bias = layer.proj.weight, layer.proj.bias
        half = len(bias) // 2
        linear = torch.nn.functional.linear
        return linear(hidden, weight[:half], bias[:half]) * torch.nn.functional.gelu(linear(hidden, weight[half:], bias[half:]))

    for module in unet.modules():
        if isinstance(module, GEGLU):
            module.forward = partial(gated, module)
