"""Trains the denoiser and the text encoder together: noise prediction on the latents, fresh captions every time."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .. import noise as schedule_of_noise
from ..denoiser import build
from ..text_encoder import TextEncoder
from ..tokenizer import tokenize
from . import autoencoder, text
from .captioned import Captioned
from .latents import latents
from .session import Schedule, Session

SCHEDULE = Schedule(steps=16000, rate=1.2e-3, warmup=100, average=0.9985, cooldown=0.4, weight_decay=1e-3, seed=6, save_every=250)
BATCH = 32
EMPTY_SHARE = 0.1  # captions dropped, for classifier-free guidance


def session(schedule: Schedule = SCHEDULE) -> Session:
    """The (resumed) session of UNet and text encoder."""
    from diffusers.models.attention_processor import AttnProcessor

    torch.manual_seed(schedule.seed)
    unet = build()
    unet.set_attn_processor(AttnProcessor())  # plain products: half the time of the fused kernel's backward on a CPU
    encoder = TextEncoder()
    groups = [{"params": list(unet.parameters())}, {"params": list(encoder.parameters()), "boost": 0.5}]
    made = Session("denoiser", {"unet": unet, "encoder": encoder}, schedule, groups)
    if made.step == 0:
        made.adopt("encoder", text.train())
    return made


def train(schedule: Schedule = SCHEDULE) -> Session:
    """Train (or go on training); returns the session with averaged weights."""
    made = session(schedule)
    unet, encoder = made.modules["unet"], made.modules["encoder"]
    store = latents(autoencoder.train())
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
