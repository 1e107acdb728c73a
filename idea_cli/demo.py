"""The demo model's world, in which the command line can judge without any download: its judge, its photographs, its prompts."""
from __future__ import annotations

import torch
from torch import Tensor

from .judging import PackJudge

_WORLD_SIDE = 128  # pixels the Portrait World's judge looks at


class WorldJudge:
    """The Portrait World's judge, which shares nothing with its face pack; that only says whether there is a face."""

    recognizer = "portrait world judge"

    def __init__(self, encoder):
        self._faces = PackJudge(encoder)

    def measure(self, photo: Tensor) -> Tensor | None:
        from idea_engine.training.pictures import prepare_photos
        from portrait_world.judging.similarity import judge_embeddings

        if self._faces.measure(photo) is None:
            return None
        pixels = (prepare_photos([photo], _WORLD_SIDE) * 255).round().to(torch.uint8).numpy()
        return judge_embeddings(pixels)[0]


def world_photographs(split: str, index: int, count: int) -> list[Tensor]:
    """``count`` drawn photographs (128, 128, 3) of one person of the Portrait World, such as no training has seen."""
    import numpy as np

    from portrait_world.drawing.portrait import render
    from portrait_world.world.people import person
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
