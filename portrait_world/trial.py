"""One trial of the benchmark: a method learns one person from photographs, then draws that person from prompts."""
from __future__ import annotations

import resource
import time
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from . import assets, captions, faceclip_trial, noise
from .autoencoder import SD_SCALE, to_pictures
from .contenders import CONTENDERS, recipe_of, starting_point
from .people import names, person
from .portrait import render
from .shot import Shot, photograph

# Prompts never used in training. None of them is the reference's own scene, garment, colour and expression together.
PROMPTS: tuple[Shot, ...] = (
    Shot(scene="beach", colour="red", garment="shirt", expression="smiling"),
    Shot(scene="city", colour="white", garment="suit"),
    Shot(scene="mountains", colour="green", garment="sweater", accessory="glasses"),
    Shot(scene="space", colour="yellow", garment="shirt", expression="surprised"),
    Shot(scene="library", colour="purple", garment="sweater", accessory="headphones"),
    Shot(scene="forest", colour="orange", garment="shirt", style="sketch"),
    Shot(scene="desert", colour="blue", garment="suit", accessory="hat"),
    Shot(scene="studio", colour="black", garment="sweater", expression="sad", style="painting"),
)
DETECTION_SIZE = 320  # what suits faces that fill a small picture, see docs/portrait_world.md
# Prompts without the person, whose pictures should stay what they were.
PLAIN_PROMPTS = ("a photo of clara hughes smiling on a beach", "a photo of a person with long red hair in a library")


@dataclass(frozen=True)
class Trial:
    """What one method made of one person.

    Attributes:
        pictures: (prompts, 128, 128, 3) uint8, one per prompt of PROMPTS.
        by_step: training step → pictures of the first prompts at that step.
        drift: mean absolute change of the plain prompts' pictures, in 0..255 steps.
        seconds: of training. peak_megabytes: of the process.
    """

    pictures: np.ndarray
    by_step: dict[int, np.ndarray] = field(default_factory=dict)
    drift: float = 0.0
    seconds: float = 0.0
    peak_megabytes: float = 0.0


def reference_shots(index: int, count: int) -> list[Shot]:
    """How the user's photographs of person ``index`` were taken: with a bare face, as anybody would choose."""
    rng = np.random.default_rng([11, index])
    return [photograph(rng).with_(accessory="none") for _ in range(count)]


def reference_photographs(split: str, index: int, count: int) -> np.ndarray:
    """(count, 128, 128, 3) uint8: what the user gives."""
    return np.stack([render(person(split, index), shot) for shot in reference_shots(index, count)])


def other_photographs(split: str, index: int, count: int = 6) -> np.ndarray:
    """(count, 128, 128, 3) uint8: photographs of the same person that no method has seen, for scoring."""
    rng = np.random.default_rng([12, index])
    return np.stack([render(person(split, index), photograph(rng)) for _ in range(count)])


@lru_cache(maxsize=1)
def _world():
    """The backend on the shipped model and the anchor of the world's names."""
    from idea_engine.anchors import compute_anchor, with_spread
    from idea_engine.backends.diffusers import DiffusersBackend

    from .pipeline import load_pipeline

    pipe = load_pipeline()
    pipe.unet.to(torch.bfloat16)  # as hosts run it where they can; what is learned stays float32
    backend = DiffusersBackend(pipe)
    return backend, with_spread(compute_anchor(backend, names()), backend, names())


def _draw_known(index: int, seed: int) -> np.ndarray:
    """(prompts, 128, 128, 3) uint8 of a person whom the model knows by name."""
    backend, anchor = _world()
    artist, name = Artist(backend, len(anchor.names_used)), names()[index % len(names())]
    return artist.draw_texts([captions.prompt(name, shot) for shot in PROMPTS], seed)


@lru_cache(maxsize=1)
def _plain_pictures() -> np.ndarray:
    """What the untouched model draws for the plain prompts."""
    backend, anchor = _world()
    return Artist(backend, len(anchor.names_used)).draw_plain(None)


@lru_cache(maxsize=1)
def _faces():
    from idea_engine.insightface_encoder import load_face_model

    return load_face_model(assets.FACE_PACK, "CPU", DETECTION_SIZE)


def faces_seen(pictures: np.ndarray) -> np.ndarray:
    """(B,) bool: in which pictures the face pack finds a face."""
    return np.array([bool(_faces().detect(picture, DETECTION_SIZE)) for picture in pictures])


def face_mask_of(picture: np.ndarray) -> Tensor:
    """(H, W) in 0..1: where the largest face of a picture is, as Face Embed tells it.

    Raises:
        FaceNotFoundError: the face pack finds no face.
    """
    from idea_engine.face import embed_faces

    return embed_faces(_faces(), [torch.from_numpy(picture).float() / 255]).masks[0]


@dataclass(frozen=True)
class Learned:
    """A person as a method has learned them.

    Attributes:
        artist: draws with the trained module. by_step, seconds: see :class:`Trial`.
        plain: the untouched model's pictures of PLAIN_PROMPTS.
    """

    artist: "Artist"
    by_step: dict[int, np.ndarray]
    seconds: float
    plain: np.ndarray


def learn(method: str, split: str, index: int, photos: int, seed: int, steps: int = 0, stops: tuple[int, ...] = ()) -> Learned:
    """Let a method learn one person.

    Args:
        method: a name of CONTENDERS.
        steps: training steps; 0 = the recipe's own.
        stops: steps at which the first two prompts are drawn too.
    Raises:
        FaceNotFoundError: the face pack finds no face in one of the reference photographs.
    """
    from idea_engine.face import embed_faces
    from idea_engine.methods import build as build_module
    from idea_engine.train import train
    from idea_engine.train_config import TrainConfig
    from idea_engine.types import EnhancedIdentity

    contender = CONTENDERS[method]
    references = [torch.from_numpy(picture).float() / 255 for picture in reference_photographs(split, index, photos)]
    face = embed_faces(_faces(), references)
    recipe = recipe_of(contender, steps)
    backend, anchor = _world()
    enhanced = EnhancedIdentity(
        family=backend.family, face=face.mean(), anchor=starting_point(contender, backend, anchor), seed=seed, masks=face.masks
    )
    artist = Artist(backend, len(anchor.names_used))
    plain = _plain_pictures()
    by_step: dict[int, np.ndarray] = {}
    drawing = 0.0

    def on_step(event) -> None:
        nonlocal drawing
        if event.step in stops:
            begun = time.perf_counter()
            by_step[event.step] = artist.draw(PROMPTS[:2], seed)
            drawing += time.perf_counter() - begun

    def build(*arguments):
        artist.module = build_module(*arguments)
        return artist.module

    @dataclass(frozen=True)
    class Config(TrainConfig):
        def resolved(self):
            return recipe

    begun = time.perf_counter()
    said = tuple(captions.circumstances(shot) for shot in reference_shots(index, photos)) if contender.captioned else ()
    config = Config(trigger="<anna>", resolution=128, seed=seed, captions=said)
    train(backend, enhanced, references, config, masks=face.masks, on_step=on_step, build=build)
    seconds = time.perf_counter() - begun - drawing
    return Learned(artist, by_step, seconds, plain)


def run_trial(method: str, split: str, index: int, photos: int, seed: int, steps: int = 0, stops: tuple[int, ...] = ()) -> Trial:
    """Learn one person and draw them; arguments and errors as for :func:`learn`."""
    from idea_engine.face import embed_faces

    contender = CONTENDERS[method]
    if contender.start == "name":
        return Trial(_draw_known(index, seed))
    if contender.start == "photograph":
        references = [torch.from_numpy(picture).float() / 255 for picture in reference_photographs(split, index, photos)]
        return faceclip_trial.run(embed_faces(_faces(), references), PROMPTS, seed)
    learned = learn(method, split, index, photos, seed, steps, stops)
    artist = learned.artist
    drift = np.abs(artist.draw_plain(artist.module).astype(float) - learned.plain).mean()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Trial(artist.draw(PROMPTS, seed), learned.by_step, float(drift), learned.seconds, peak)


class Artist:
    """Draws with the module as it stands; the same start noise for every method."""

    def __init__(self, backend, count: int):
        self.backend, self.count = backend, count
        self.module = None

    @torch.no_grad()
    def draw(self, shots: tuple[Shot, ...], seed: int) -> np.ndarray:
        """(len(shots), 128, 128, 3) uint8 of the person."""
        from idea_engine.stages import stage_of
        from idea_engine.tokens import tokenize_template

        texts = [captions.prompt("{tokens}", shot) for shot in shots]
        prompts = [tokenize_template(self.backend, text, self.count) for text in texts]
        stages, read = self.module.recipe.stages, {}

        def edit_at(timestep: Tensor):
            stage = int(stage_of(timestep[None], stages, self.backend.timesteps)) if stages else 0
            if stage not in read:
                read[stage] = self.module.read(self.backend, prompts, range(len(prompts)), timestep.expand(len(prompts)))
            return read[stage][1]

        edit_at(torch.tensor(noise.STEPS - 1))
        return self._sample(next(iter(read.values()))[0].context, edit_at, seed)

    @torch.no_grad()
    def draw_texts(self, texts: list[str], seed: int) -> np.ndarray:
        """(len(texts), 128, 128, 3) uint8 of prompts as they are, by the untouched model."""
        from idea_engine.backends.base import CrossAttentionEdit

        condition = torch.cat([self._plain_condition(text) for text in texts])
        return self._sample(condition, lambda timestep: CrossAttentionEdit(), seed)

    @torch.no_grad()
    def draw_plain(self, module) -> np.ndarray:
        """(2, 128, 128, 3) uint8 of the prompts without the person; ``module`` None for the untouched model."""
        from idea_engine.backends.base import CrossAttentionEdit

        condition = torch.cat([self._plain_condition(text) for text in PLAIN_PROMPTS])
        edit = CrossAttentionEdit()
        if module is not None:
            whole = module.edit(torch.zeros(len(PLAIN_PROMPTS), self.count, dtype=torch.long))
            if whole.key_offsets is None:  # offsets sit at the person's own tokens, and there are none here
                edit = whole
        return self._sample(condition, lambda timestep: edit, seed=3)

    def _plain_condition(self, text: str) -> Tensor:
        from .tokenizer import tokenize

        encoder = self.backend.encoders["clip_l"]
        return encoder(tokenize([text])).last_hidden_state.float()

    def _sample(self, condition: Tensor, edit_at, seed: int) -> np.ndarray:
        """``edit_at``: timestep → the CrossAttentionEdit of the pictures' prompts at that time."""
        from idea_engine.backends.base import CrossAttentionEdit, TextCondition

        def predict(latents: Tensor, timestep: Tensor, both: Tensor) -> Tensor:
            kept = noise.KEPT[timestep]
            steps = timestep.expand(len(latents) // 2)
            edit = edit_at(timestep)
            only_weights = CrossAttentionEdit(key_weights=edit.key_weights, value_weights=edit.value_weights)
            parts = []
            # the backend noises what it is given; clean = noisy / √kept with no noise gives back the noisy latents
            for part, text, change in zip(latents.chunk(2), both.chunk(2), (only_weights, edit)):
                clean = part / kept.sqrt()
                parts.append(self.backend.predict(clean, torch.zeros_like(clean), steps, TextCondition(text), change).output)
            return torch.cat(parts)

        start = torch.randn(len(condition), 4, 16, 16, generator=torch.Generator().manual_seed(1000 + seed))
        latents = noise.sample(predict, condition, self._plain_condition(""), start, steps=20, guidance=3.0)
        return to_pictures(assets.autoencoder().decode(latents / SD_SCALE))
