"""One trial of the benchmark: a method learns one person from photographs, then draws that person from prompts."""
from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from idea_engine.faces.search import DetectedFace
from idea_engine.identity.enhanced import EnhancedIdentity
from idea_engine.identity.identity import Identity

from ..drawing.portrait import render
from ..enhancer import person_at_once
from ..judging.likeness import face_model, faces_in
from ..networks import noise
from ..world import captions
from ..world.people import names, person
from ..world.portrayal import Shot, photograph
from . import faceclip_trial, sampler as drawing
from .contenders import CONTENDERS, recipe_of
from .peak_memory import peak_megabytes

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
TRIGGER = "<anna>"
ATTENTION_TIMESTEP = 400  # where attention is looked at, in the middle of the schedule: the picture is laid out, its details are not
# Prompts without the person, whose pictures should stay what they were.
PLAIN_PROMPTS = ("a photo of clara hughes smiling on a beach", "a photo of a person with long red hair in a library")


@dataclass(frozen=True)
class Trial:
    """What one method made of one person.

    Attributes:
        pictures: (prompts, 128, 128, 3) uint8, one per prompt of PROMPTS. faces: of :func:`~portrait_world.judging.likeness.faces_in`, one per picture.
        by_step: training step → pictures, as ``pictures``, at that step.
        drift: mean absolute change of the plain prompts' pictures, in 0..255 steps.
        seconds: of the processor, for the training. peak_megabytes: of the process, nan where the system does not tell.
        inside: share of the attention of the person's words that lies inside the face, 0..1; None where there are no such words, or no face.
    """

    pictures: np.ndarray
    faces: list[DetectedFace | None]
    by_step: dict[int, np.ndarray] = field(default_factory=dict)
    drift: float = 0.0
    seconds: float = 0.0
    peak_megabytes: float = 0.0
    inside: float | None = None


def reference_shots(index: int, count: int) -> list[Shot]:
    """How the user's photographs of person ``index`` were taken: with a bare face, as anybody would choose."""
    rng = np.random.default_rng([11, index])
    return [photograph(rng).with_(accessory="none") for _ in range(count)]


def reference_photographs(split: str, index: int, count: int) -> np.ndarray:
    """(count, 128, 128, 3) uint8: what the user gives."""
    return np.stack([render(person(split, index), shot) for shot in reference_shots(index, count)])


@lru_cache(maxsize=1)
def open_backend():
    """The engine's backend on the shipped model, opened once."""
    from idea_engine.backends.diffusers import DiffusersBackend

    from ..pipeline import load_pipeline

    pipe = load_pipeline()
    return DiffusersBackend(pipe)


@lru_cache(maxsize=2)  # the shipped model, and another beside it
def anchor_of_names(backend):
    """The anchor of the world's names on a backend."""
    from idea_engine.identity.anchor import compute_anchor

    return compute_anchor(backend, names())


@lru_cache(maxsize=2)
def anchor_with_spread(backend):
    """The same with the spread of the single names, for recipes whose covariance is theirs."""
    from idea_engine.identity.anchor import with_spread

    return with_spread(anchor_of_names(backend), backend, names())


def _draw_known(index: int, seed: int) -> np.ndarray:
    """(prompts, 128, 128, 3) uint8 of a person whom the model knows by name."""
    name = names()[index % len(names())]
    return Artist().draw_texts([captions.prompt(name, shot) for shot in PROMPTS], seed)


@lru_cache(maxsize=2)
def _plain_pictures(backend) -> np.ndarray:
    """What the untouched model draws for the plain prompts."""
    return Artist(backend).draw_plain(None)


def read_faces(pictures: np.ndarray):
    """(B, H, W, 3) uint8 → the pictures as the engine takes them, (H, W, 3) in 0..1 each, and the largest face of each as one FaceEmbedding.

    Raises:
        FaceNotFoundError: the face pack finds no face in one of them.
    """
    from idea_engine.faces.embed import embed_faces

    photos = [torch.from_numpy(picture).float() / 255 for picture in pictures]
    return photos, embed_faces(face_model(), photos)


def seen_by(face) -> Callable[[Tensor], float]:
    """(K, H, W, 3) pictures in 0..1 → their mean cosine to a FaceEmbedding, as the face pack sees both; a picture without a face counts 0. The judge
    is not asked."""
    from idea_engine.faces.embed import align_face

    person = face.mean()

    def likeness(pictures: Tensor) -> float:
        pixels = (pictures * 255).round().byte().numpy()
        crops = [align_face(picture, found.landmarks) for picture, found in zip(pixels, faces_in(pixels), strict=True) if found is not None]
        return float((torch.as_tensor(np.asarray(face_model().embed(crops))) @ person).sum()) / len(pixels) if crops else 0.0

    return likeness


@dataclass(frozen=True)
class Learned:
    """A person as a method has learned them.

    Attributes:
        identity: what an identity file would hold. artist: draws with the trained module. by_step, seconds: see :class:`Trial`.
        plain: the untouched model's pictures of PLAIN_PROMPTS.
    """

    identity: Identity
    artist: "Artist"
    by_step: dict[int, np.ndarray]
    seconds: float
    plain: np.ndarray


def learn(
    method: str, split: str, index: int, photos: int, seed: int, steps: int = 0, stops: tuple[int, ...] = (), *, backend=None, begin=None,
) -> Learned:
    """Let a method learn one person.

    Args:
        method: a name of CONTENDERS.
        steps: training steps; 0 = the recipe's own.
        stops: steps at which the person is drawn too.
        backend: the model to learn on; None for the shipped one.
        begin: a ``build`` of :func:`idea_engine.training.loop.train`, for another start than the recipe's own.

    Raises:
        FaceNotFoundError: the face pack finds no face in one of the reference photographs.
    """
    from idea_engine.methods import build as anew
    from idea_engine.training.config import TrainConfig
    from idea_engine.training.loop import train
    from idea_engine.training.previews import Previews

    contender, backend = CONTENDERS[method], backend or open_backend()
    references, face = read_faces(reference_photographs(split, index, photos))
    recipe = recipe_of(contender, steps)
    anchor = (anchor_with_spread if recipe.covariance == "names" else anchor_of_names)(backend)
    identity = person_at_once(backend, face, anchor) if contender.enhanced else None
    enhanced = EnhancedIdentity(family=backend.family, face=face.mean(), anchor=anchor, seed=seed, masks=face.masks, identity=identity)
    artist = Artist(backend)
    plain = _plain_pictures(backend)
    by_step: dict[int, np.ndarray] = {}
    drawing = 0.0

    def on_step(event) -> None:
        nonlocal drawing
        if event.step in stops:
            begun = time.process_time()
            by_step[event.step] = artist.draw(PROMPTS, seed, contender.starts_at)
            drawing += time.process_time() - begun

    def build(*arguments):
        artist.module = (begin or anew)(*arguments)
        return artist.module

    @dataclass(frozen=True)
    class Config(TrainConfig):
        def resolved(self):
            return recipe

    begun = time.process_time()  # what the training computes, whatever else the machine does
    said = tuple(captions.circumstances(shot) for shot in reference_shots(index, photos)) if contender.captioned else ()
    config = Config(trigger=TRIGGER, resolution=128, seed=seed, captions=said)
    previews = Previews(contender.judged_every, seen_by(face)) if contender.judged_every else None
    identity, _ = train(backend, enhanced, references, config, masks=face.masks, on_step=on_step, previews=previews, build=build)
    seconds = time.process_time() - begun - drawing
    return Learned(identity, artist, by_step, seconds, plain)


def run_trial(method: str, split: str, index: int, photos: int, seed: int, steps: int = 0, stops: tuple[int, ...] = ()) -> Trial:
    """Learn one person and draw them; arguments and errors as for :func:`learn`."""
    contender = CONTENDERS[method]
    if contender.shows == "name":
        pictures = _draw_known(index, seed)
        return Trial(pictures, faces_in(pictures))
    if contender.shows == "photograph":
        _, face = read_faces(reference_photographs(split, index, photos))
        seconds = faceclip_trial.seconds_to_read(face)  # in place of a training
        pictures = faceclip_trial.draw(face, PROMPTS, seed)
        return Trial(pictures, faces_in(pictures), seconds=seconds, peak_megabytes=peak_megabytes())
    learned = learn(method, split, index, photos, seed, steps, stops)
    artist = learned.artist
    drift = np.abs(artist.draw_plain(artist.module).astype(float) - learned.plain).mean()
    peak = peak_megabytes()
    pictures = artist.draw(PROMPTS, seed, contender.starts_at)
    faces = faces_in(pictures)
    return Trial(pictures, faces, learned.by_step, float(drift), learned.seconds, peak, artist.attention_inside_face(PROMPTS, pictures, faces, seed))


class Artist:
    """Draws with the module as it stands, on the shipped model or on another; the same start noise for every method."""

    def __init__(self, backend=None, module=None):
        from idea_engine.identity.anchor import TOKENS_PER_IDENTITY

        self.backend, self.count = backend or open_backend(), TOKENS_PER_IDENTITY
        self.module = module

    @torch.no_grad()
    def draw(self, shots: tuple[Shot, ...], seed: int, starts_at: float = 0.0) -> np.ndarray:
        """(len(shots), 128, 128, 3) uint8 of the person, who comes in when ``starts_at`` (0..1) of the schedule has passed: before, the trigger is
        read as plain words, as both hosts do it."""
        from idea_engine.backends.noise_stages import stage_of
        from idea_engine.backends.templates import tokenize_template

        texts = [captions.prompt("{tokens}", shot) for shot in shots]
        prompts = [tokenize_template(self.backend, text, self.count) for text in texts]
        stages, read = self.module.recipe.stages, {}

        def edit_at(timestep: Tensor):
            stage = int(stage_of(timestep[None], stages, self.backend.timesteps)) if stages else 0
            if stage not in read:
                read[stage] = self.module.read(self.backend, prompts, range(len(prompts)), timestep.expand(len(prompts)))
            return read[stage][1]

        edit_at(torch.tensor(noise.STEPS - 1))
        condition = next(iter(read.values()))[0].context
        if not starts_at:
            return self._sample(condition, edit_at, seed)
        before = torch.cat([self._plain_condition(captions.prompt(TRIGGER, shot)) for shot in shots])
        return self._sample(condition, edit_at, seed, before, (1 - starts_at) * (noise.STEPS - 1))

    @torch.no_grad()
    def attention_inside_face(
        self, shots: tuple[Shot, ...], pictures: np.ndarray, faces: Sequence[DetectedFace | None], seed: int
    ) -> float | None:
        """How much of the attention of the person's words lies inside the face, 0..1: mean over the pictures of ``shots`` that have a face."""
        from idea_engine.backends.templates import tokenize_template
        from idea_engine.faces.mask import face_mask
        from idea_engine.training.attention_loss import attention_inside

        rows = [row for row, face in enumerate(faces) if face is not None]
        if not rows:
            return None
        latents = self.backend.encode_images(torch.from_numpy(pictures[rows]).float() / 255)
        prompts = [tokenize_template(self.backend, captions.prompt("{tokens}", shots[row]), self.count) for row in rows]
        whole = torch.stack([face_mask(*map(torch.from_numpy, (faces[row].box, faces[row].landmarks)), *pictures.shape[1:3]) for row in rows])
        masks = torch.nn.functional.adaptive_avg_pool2d(whole[:, None], latents.shape[-2:])[:, 0]
        start = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
        timesteps = torch.full((len(rows),), ATTENTION_TIMESTEP)
        return float(attention_inside(self.backend, self.module, prompts, latents, start, timesteps, masks).mean())

    @torch.no_grad()
    def draw_texts(self, texts: list[str], seed: int) -> np.ndarray:
        """(len(texts), 128, 128, 3) uint8 of prompts as they are, by the untouched model."""
        return self.draw_conditions(torch.cat([self._plain_condition(text) for text in texts]), seed)

    @torch.no_grad()
    def draw_conditions(self, condition: Tensor, seed: int) -> np.ndarray:
        """(B, 77, d) text conditions → (B, 128, 128, 3) uint8, by the untouched model."""
        from idea_engine.backends.base import CrossAttentionEdit

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
        from ..tokenizer import tokenize

        encoder = self.backend.encoders["clip_l"]
        return encoder(tokenize([text])).last_hidden_state.float()

    def _sample(self, condition: Tensor, edit_at, seed: int, before: Tensor | None = None, first: float = float("inf")) -> np.ndarray:
        """``edit_at``: timestep → the CrossAttentionEdit of the pictures' prompts at that time. At timesteps above ``first`` the text condition
        ``before`` is read instead, with no edit."""
        from idea_engine.backends.base import CrossAttentionEdit, TextCondition

        def predict(latents: Tensor, timestep: Tensor, both: Tensor) -> Tensor:
            kept = noise.KEPT[timestep]
            steps = timestep.expand(len(latents) // 2)
            empty, text = both.chunk(2)
            text, edit = (before, CrossAttentionEdit()) if timestep > first else (text, edit_at(timestep))
            only_weights = CrossAttentionEdit(key_weights=edit.key_weights, value_weights=edit.value_weights)
            parts = []
            # the backend noises what it is given; clean = noisy / √kept with no noise gives back the noisy latents
            for part, read, change in zip(latents.chunk(2), (empty, text), (only_weights, edit)):
                clean = part / kept.sqrt()
                parts.append(self.backend.predict(clean, torch.zeros_like(clean), steps, TextCondition(read), change).output)
            return torch.cat(parts)

        return drawing.draw(predict, condition, self._plain_condition(""), seed)
