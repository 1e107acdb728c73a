"""Trains the ID-Enhancer through the frozen denoiser: a person, known by photographs, must be found in the noise of another picture.

First the network learns to see: to tell heads apart, and to say of a person what words and measures say. That needs no denoiser, costs a minute, and leaves to
the denoiser, whose gradients are dear and noisy, only how a person is drawn. Then the whole network learns through it: at the start much of the target is what the
denoiser itself predicts when the caption describes the person, which is free of the chance in the noise; at the end all of it is the noise.
Text encoder, denoiser and recognizer stay as they are; the judge takes no part, and nobody of validation or test is seen.
"""
from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from ..trials.trial import anchor_of_names, anchor_with_spread, open_backend
from ..world.captions import caption, describe
from ..world.people import BEARDS, EYE_COLOURS, HAIR_COLOURS, HAIR_STYLES, TRAITS, Person, person
from .many_people import PHOTOGRAPHS, PICTURES, SPLIT, many_people
from .recognizer import augment
from .session import Schedule, Session

SCHEDULE = Schedule(steps=12_000, rate=1.5e-3, warmup=50, average=0.998, cooldown=0.5, weight_decay=1e-3, seed=32, save_every=100)
PEOPLE = 6_000
LOOKING_STEPS, LOOKING_BATCH = 500, 64  # of the schedule: learning to see
BATCH = 16
START = "person"  # the word that the network turns into somebody: the one that the recipes begin at
NOBODY_SHARE = 0.05  # of the people are not shown: the average person
HEAD_SHARE = 0.6  # of the loss comes from face and hair; the rest keeps the scene what the caption says
TOLD, TOLD_STEPS = 0.8, 1500  # of the target what words say of the person, falling to 0 over so many steps after the looking
SPAN = (0.1, 0.95)  # of the noise schedule; finer noise shows nobody
PHOTOGRAPHS_SHOWN = (0.6, 0.25, 0.15)  # how often one, two, three photographs are shown


def session(schedule: Schedule = SCHEDULE) -> Session:
    """The (resumed) session of the network."""
    from idea_engine.enhancer.network import Enhancer, EnhancerSizes

    backend = open_backend()
    anchor, spread = names_read(backend)
    torch.manual_seed(schedule.seed)
    sizes = EnhancerSizes(width=backend.family.context_width, blocks=len(backend.block_widths), count=len(anchor))
    network = Enhancer(sizes, anchor, spread[:sizes.names])
    readout = torch.nn.Linear(sizes.count * 2 * sizes.width, len(measures(person(SPLIT, 0))))
    return Session("enhancer", {"network": network, "readout": readout}, schedule)


def measures(who: Person) -> np.ndarray:
    """(A,) float32 of about ±1: what a person looks like, in numbers. Only the learning to see knows them."""
    words = [value == word for value, known in (
        (who.hair, HAIR_STYLES), (who.hair_colour, HAIR_COLOURS), (who.eye_colour, EYE_COLOURS), (who.beard, dict.fromkeys(BEARDS))) for word in known]
    return np.array([2 * who.traits[trait] - 1 for trait in TRAITS] + [2.0 * said - 0.5 for said in (*words, who.freckles is not None)], np.float32)


def names_read(backend) -> tuple[Tensor, Tensor]:
    """(n, d) the anchor of the world's names and (k, d) the axes of their spread, the longest first."""
    anchor = anchor_with_spread(backend)
    return backend.family.join(anchor.rows), backend.family.join(anchor.spread)


def train(schedule: Schedule = SCHEDULE) -> Session:
    """Train (or go on training), then write the asset."""
    made = session(schedule)
    if not made.finished:
        lessons = Lessons(made)
        with quick(lessons.backend):
            made.run(lessons)
    export(made)
    return made


@contextmanager
def quick(backend):
    """While open, gradients flow through the frozen denoiser in half the time on a CPU: plain attention products, gates without copies."""
    from diffusers.models.activations import GEGLU
    from diffusers.models.attention_processor import AttnProcessor

    from .denoiser import _split_gates

    before = backend.unet.attn_processors
    backend.unet.set_attn_processor(AttnProcessor())
    _split_gates(backend.unet)
    try:
        with backend.training():
            yield
    finally:
        backend.unet.set_attn_processor(before)
        for module in backend.unet.modules():
            if isinstance(module, GEGLU):
                del module.forward


class _Talkative:
    """A generator for :func:`~portrait_world.world.captions.describe` that leaves nothing unsaid."""

    def __init__(self, rng: np.random.Generator):
        self.shuffle = rng.shuffle

    def uniform(self) -> float:
        return 0.0


class Lessons:
    """The loss of a step, by how far the training is."""

    def __init__(self, made: Session):
        from idea_engine.identity.anchor import with_start

        self.session, self.rng = made, made.rng
        self.network = made.modules["network"]
        self.people = many_people(PEOPLE)
        self.backend = open_backend()
        self.measures = torch.from_numpy(np.stack([measures(person(SPLIT, index)) for index in range(PEOPLE)]))
        self.talkative = _Talkative(rng=made.rng)
        self.start = with_start(anchor_of_names(self.backend), self.backend, START).start

    def __call__(self) -> tuple[Tensor, dict[str, float]]:
        if self.session.step < LOOKING_STEPS:
            return self._looking()
        from idea_engine.enhancer.learn import found_in_noise

        with torch.autocast("cpu", torch.bfloat16):
            losses = found_in_noise(self.network, self.backend, self.lesson(), self.start, HEAD_SHARE, self.told())
        return losses.mean(), {"wrong": 0.0}

    def told(self) -> float:
        """How much of the target comes from words at this step."""
        through = (self.session.step - LOOKING_STEPS) / TOLD_STEPS
        return TOLD * max(0.0, 1 - through)

    def _looking(self) -> tuple[Tensor, dict[str, float]]:
        from idea_engine.enhancer.learn import told_apart

        people = torch.from_numpy(self.rng.choice(PEOPLE, LOOKING_BATCH, replace=False))
        who, shown = people.repeat(2), torch.from_numpy(self.rng.choice(PHOTOGRAPHS, 2, replace=False)).repeat_interleave(LOOKING_BATCH)
        with torch.autocast("cpu", torch.bfloat16):
            looks = self.network.tower(self._heads(who, shown))
            enhanced = self.network.enhance(self.network.judge(self.people.vectors[who, shown][:, None], torch.ones(len(who), 1), looks[:, None]))
            said = self.session.modules["readout"](enhanced.flatten(1))
        wrong = (said.float() - self.measures[who]).square().mean()
        return wrong + 0.1 * told_apart(*looks.chunk(2)), {"wrong": float(wrong.detach())}

    def _heads(self, who: Tensor, photograph) -> Tensor:
        """(B, 3, S, S) in -1..1, a little blurred, noisy and bright or dark, as cameras are."""
        from idea_engine.faces.head import as_pixels

        return augment(as_pixels(self.people.heads[who, photograph]))

    def lesson(self):
        """The random choices of a step."""
        from idea_engine.backends.templates import tokenize_template
        from idea_engine.enhancer.learn import Lesson
        from idea_engine.training.batch import spread_timesteps

        people, rng = self.people, self.rng
        who = torch.from_numpy(rng.choice(PEOPLE, BATCH, replace=False))
        pictures = rng.integers(PICTURES, size=BATCH)
        count = 1 + int(rng.choice(len(PHOTOGRAPHS_SHOWN), p=PHOTOGRAPHS_SHOWN))
        shown = torch.from_numpy(rng.permuted(np.tile(np.arange(PHOTOGRAPHS), (BATCH, 1)), axis=1)[:, :count])
        heads = self._heads(who[:, None].expand(-1, count).flatten(), shown.flatten()).unflatten(0, (BATCH, count))
        asked = [(int(index), int(number), int(rng.integers(1 << 30))) for index, number in zip(who, pictures)]

        def texts(subject) -> list[str]:
            return [caption(subject(index), people.shot(index, number), np.random.default_rng(seed)) for index, number, seed in asked]

        latents = people.latents[who, torch.from_numpy(pictures)].float()
        return Lesson(
            vectors=people.vectors[who[:, None], shown], weights=torch.rand(BATCH, count) * 0.5 + 0.5, heads=heads,
            shown=torch.from_numpy(rng.uniform(size=BATCH) >= NOBODY_SHARE),
            prompts=[tokenize_template(self.backend, text, self.network.sizes.count) for text in texts(lambda index: "{tokens}")],
            latents=latents, noise=torch.randn_like(latents), timesteps=spread_timesteps(torch.rand(BATCH), self.backend.timesteps, SPAN),
            masks=people.masks[who, torch.from_numpy(pictures)].float() / 255,
            described=[self.backend.tokenize(text, "", 0) for text in texts(lambda index: describe(person(SPLIT, index), self.talkative))] if self.told() else (),
        )


def export(made: Session | None = None, **figures: float) -> None:
    """Write the asset from the checkpoint, finished or not.

    Args:
        figures: measured on people it has never seen, by name.
    """
    from idea_engine.enhancer.file import EnhancerNotes, save_enhancer, text_reading

    from .. import assets
    from ..enhancer import PATH
    from ..judging.likeness import face_model

    made = made or session()
    made.averaged()
    backend = open_backend()
    notes = EnhancerNotes(
        family=backend.family.name, encoders=dict(backend.family.encoders), recognizer=face_model().recognizer, licence=assets.LICENCE,
        learned_from=f"{PEOPLE} drawn people of the Portrait World", start=START, step=made.step, figures=figures,
    )
    save_enhancer(made.modules["network"], notes, text_reading(backend), PATH)
