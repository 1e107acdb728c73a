"""Who judges: recognizers that took no part in the training, and CLIP for the prompt."""
from __future__ import annotations

import argparse
from typing import Protocol

import torch
from torch import Tensor

from idea_engine.errors import EvaluationError, FaceNotFoundError
from idea_engine.faces.embed import embed_faces

_WORLD_SIDE = 128  # pixels the Portrait World's judge looks at


class Judge(Protocol):
    """A scoring recognizer. ``recognizer`` names it; embeddings of two recognizers cannot be compared."""

    recognizer: str

    def measure(self, photo: Tensor) -> Tensor | None:
        """(H, W, 3) in 0..1 → (d,) of unit length, or None where no face is found."""


class PackJudge:
    """The recognizer of a face pack, on its largest face."""

    def __init__(self, encoder):
        self._encoder, self.recognizer = encoder, encoder.recognizer

    def measure(self, photo: Tensor) -> Tensor | None:
        try:
            return embed_faces(self._encoder, [photo]).mean()
        except FaceNotFoundError:
            return None


class WorldJudge:
    """The Portrait World's judge, which shares nothing with its face pack; that only says whether there is a face."""

    recognizer = "portrait world judge"

    def __init__(self, encoder):
        self._faces = PackJudge(encoder)

    def measure(self, photo: Tensor) -> Tensor | None:
        from portrait_world.judging.similarity import judge_embeddings

        from idea_engine.training.pictures import prepare_photos

        if self._faces.measure(photo) is None:
            return None
        pixels = (prepare_photos([photo], _WORLD_SIDE) * 255).round().to(torch.uint8).numpy()
        return judge_embeddings(pixels)[0]


class PromptJudge:
    """CLIP's image-text cosine, from a local folder in transformers' layout."""

    def __init__(self, folder: str):
        """Raises: EvaluationError: the folder holds no CLIP."""
        from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

        try:
            self._model = CLIPModel.from_pretrained(folder, local_files_only=True).train(False)
            self._pictures = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
            self._words = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, TypeError) as error:
            raise EvaluationError(
                f"{folder} holds no CLIP ({str(error).splitlines()[0][:160]}). Give --clip a folder in transformers' layout, such as a copy of clip-vit-base-patch32."
            ) from error

    @torch.no_grad()
    def score(self, photo: Tensor, text: str) -> float:
        """Cosine of a picture (H, W, 3) in 0..1 and a text."""
        pixels = self._pictures(images=(photo * 255).round().to(torch.uint8).numpy(), return_tensors="pt").pixel_values
        words = self._words([text], padding=True, truncation=True, return_tensors="pt")
        out = self._model(pixel_values=pixels, **words)
        return float((out.image_embeds * out.text_embeds).sum())


def open_judge(options: argparse.Namespace, demo: bool) -> Judge:
    """The judge that ``--judge`` names; the Portrait World has its own.

    Raises:
        FaceModelError: there is none.
    """
    from .faces import open_pack

    if options.judge is None and demo:
        return WorldJudge(open_pack(None, options, demo=True))
    return PackJudge(open_pack(options.judge, options, option="--judge"))


def world_photographs(split: str, index: int, count: int) -> list[Tensor]:
    """``count`` drawn photographs (128, 128, 3) of one person of the Portrait World, such as no training has seen."""
    import numpy as np
    from portrait_world.world.people import person
    from portrait_world.drawing.portrait import render
    from portrait_world.world.portrayal import photograph

    rng = np.random.default_rng([17, index])
    return [torch.from_numpy(render(person(split, index), photograph(rng))).float() / 255 for _ in range(count)]


def world_prompts() -> list[str]:
    """Prompts in the Portrait World's own words."""
    from portrait_world.world.captions import prompt
    from portrait_world.world.portrayal import Shot

    shots = (
        Shot(scene="beach", colour="red", garment="shirt", expression="smiling"), Shot(scene="city", colour="white", garment="suit"),
        Shot(scene="forest", colour="orange", garment="shirt", style="sketch"), Shot(scene="desert", colour="blue", garment="suit", accessory="hat"),
    )
    return [prompt("{tokens}", shot) for shot in shots]
