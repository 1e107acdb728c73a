"""One trial of the benchmark: a method learns one person from photographs, then draws that person from prompts."""
from __future__ import annotations

import resource
import time
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from . import assets, captions, noise
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


def reference_photographs(split: str, index: int, count: int) -> np.ndarray:
    """(count, 128, 128, 3) uint8: what the user gives. Bare faces, as anybody would choose."""
    rng = np.random.default_rng([11, index])
    return np.stack([render(person(split, index), photograph(rng).with_(accessory="none")) for _ in range(count)])


def other_photographs(split: str, index: int, count: int = 6) -> np.ndarray:
    """(count, 128, 128, 3) uint8: photographs of the same person that no method has seen, for scoring."""
    rng = np.random.default_rng([12, index])
    return np.stack([render(person(split, index), photograph(rng)) for _ in range(count)])


@lru_cache(maxsize=1)
def _world():
    """The backend on the shipped model and the anchor of the world's names."""
    from idea_engine.anchors import compute_anchor
    from idea_engine.backends.diffusers import DiffusersBackend

    from .pipeline import load_pipeline

    backend = DiffusersBackend(load_pipeline())
    return backend, compute_anchor(backend, names())


@lru_cache(maxsize=1)
def _faces():
    from insightface.app import FaceAnalysis

    app = FaceAnalysis(name=str(assets.FACE_PACK), providers=["CPUExecutionProvider"])
    app.prepare(ctx_id=-1, det_size=(320, 320))
    return app


def face_vectors(pictures: np.ndarray) -> list[np.ndarray | None]:
    """The face pack's unit embedding of each picture's largest face; None where it finds none."""
    found = []
    for picture in pictures:
        faces = _faces().get(np.ascontiguousarray(picture[:, :, ::-1]), max_num=1)
        found.append(faces[0].normed_embedding if faces else None)
    return found


def face_masks(pictures: np.ndarray) -> list[Tensor]:
    """Where the largest face of each picture is, (H, W) in 0..1 each, as Face Embed tells it; nowhere where the face pack finds none."""
    from idea_engine.face_mask import face_mask

    masks = []
    for picture in pictures:
        height, width = picture.shape[:2]
        faces = _faces().get(np.ascontiguousarray(picture[:, :, ::-1]), max_num=1)
        found = faces and face_mask(torch.from_numpy(faces[0].bbox), torch.from_numpy(faces[0].kps), height, width)
        masks.append(found if faces else torch.zeros(height, width))
    return masks


@dataclass(frozen=True)
class Learned:
    """A person as a method has learned them.

    Attributes:
        module: the engine's module, trained. count: of pseudo-tokens.
        plain: (2, 128, 128, 3) uint8, the untouched model's pictures of PLAIN_PROMPTS.
    """

    backend: object
    module: object
    count: int
    by_step: dict[int, np.ndarray]
    seconds: float
    plain: np.ndarray

    def draw(self, shots: tuple[Shot, ...], seed: int) -> np.ndarray:
        """(len(shots), 128, 128, 3) uint8 of the person."""
        return _Artist(self.backend, self.count, self.module).draw(shots, seed)


def learn(method: str, split: str, index: int, photos: int, seed: int, steps: int = 0, stops: tuple[int, ...] = ()) -> Learned:
    """Let a method learn one person. Takes and raises what :func:`run_trial` does."""
    from idea_engine.methods import build as build_module
    from idea_engine.train import TrainConfig, train
    from idea_engine.types import EnhancedIdentity

    contender = CONTENDERS[method]
    recipe = recipe_of(contender, steps)
    backend, anchor = _world()
    references = reference_photographs(split, index, photos)
    vectors = [v for v in face_vectors(references) if v is not None]
    if not vectors:
        raise ValueError(f"The face pack finds no face in the photographs of {split} person {index}.")
    face = torch.nn.functional.normalize(torch.from_numpy(np.mean(vectors, 0)), dim=0)
    enhanced = EnhancedIdentity(family=backend.family, face=face, anchor=starting_point(contender, backend, anchor), seed=seed)
    artist = _Artist(backend, len(anchor.names_used))
    plain = artist.draw_plain(None)
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
    config = Config(trigger="<anna>", resolution=128, seed=seed)
    masks = face_masks(references) if recipe.reads_masks else None
    train(backend, enhanced, [torch.from_numpy(p).float() / 255 for p in references], config, masks=masks, on_step=on_step, build=build)
    seconds = time.perf_counter() - begun - drawing
    return Learned(backend, artist.module, len(anchor.names_used), by_step, seconds, plain)


def run_trial(method: str, split: str, index: int, photos: int, seed: int, steps: int = 0, stops: tuple[int, ...] = ()) -> Trial:
    """Learn one person and draw them.

    Args:
        method: a name of CONTENDERS.
        steps: training steps; 0 = the recipe's own.
        stops: steps at which the first two prompts are drawn too.
    Raises:
        ValueError: the face pack finds no face in the reference photographs.
    """
    learned = learn(method, split, index, photos, seed, steps, stops)
    artist = _Artist(learned.backend, learned.count, learned.module)
    drift = np.abs(artist.draw_plain(learned.module).astype(float) - learned.plain).mean()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Trial(artist.draw(PROMPTS, seed), learned.by_step, float(drift), learned.seconds, peak)


class _Artist:
    """Draws with the module as it stands; the same start noise for every method."""

    def __init__(self, backend, count: int, module=None):
        self._backend, self._count = backend, count
        self.module = module

    @torch.no_grad()
    def draw(self, shots: tuple[Shot, ...], seed: int) -> np.ndarray:
        """(len(shots), 128, 128, 3) uint8 of the person."""
        from idea_engine.tokens import tokenize_template

        texts = [captions.prompt("{tokens}", shot) for shot in shots]
        prompts = [tokenize_template(self._backend, text, self._count) for text in texts]
        rows = range(len(prompts))
        condition = self.module.condition(self._backend, prompts, rows).context
        return self._sample(condition, lambda timestep: self.module.read(self._backend, prompts, rows, timestep.expand(len(prompts)))[1], seed)

    @torch.no_grad()
    def draw_plain(self, module) -> np.ndarray:
        """(2, 128, 128, 3) uint8 of the prompts without the person; ``module`` None for the untouched model."""
        from idea_engine.backends.base import CrossAttentionEdit

        condition = torch.cat([self._plain_condition(text) for text in PLAIN_PROMPTS])
        edit = CrossAttentionEdit()
        if module is not None:
            whole = module.edit(torch.zeros(len(PLAIN_PROMPTS), self._count, dtype=torch.long))
            if whole.key_offsets is None:  # offsets sit at the person's own tokens, and there are none here
                edit = whole
        return self._sample(condition, lambda timestep: edit, seed=3)

    def _plain_condition(self, text: str) -> Tensor:
        from .tokenizer import tokenize

        encoder = self._backend.encoders["clip_l"]
        return encoder(tokenize([text])).last_hidden_state.float()

    def _sample(self, condition: Tensor, edit_at, seed: int) -> np.ndarray:
        """``edit_at``: timestep → the cross-attention edit there."""
        from idea_engine.backends.base import CrossAttentionEdit, TextCondition

        def predict(latents: Tensor, timestep: Tensor, both: Tensor) -> Tensor:
            edit = edit_at(timestep)
            only_weights = CrossAttentionEdit(key_weights=edit.key_weights, value_weights=edit.value_weights)
            kept = noise.KEPT[timestep]
            steps = timestep.expand(len(latents) // 2)
            parts = []
            # the backend noises what it is given; clean = noisy / √kept with no noise gives back the noisy latents
            for part, text, change in zip(latents.chunk(2), both.chunk(2), (only_weights, edit)):
                clean = part / kept.sqrt()
                parts.append(self._backend.predict(clean, torch.zeros_like(clean), steps, TextCondition(text), change).output)
            return torch.cat(parts)

        start = torch.randn(len(condition), 4, 16, 16, generator=torch.Generator().manual_seed(1000 + seed))
        latents = noise.sample(predict, condition, self._plain_condition(""), start, steps=20, guidance=3.0)
        return to_pictures(assets.autoencoder().decode(latents / SD_SCALE))
