"""``python -m portrait_world.trials.attention_figure``: where the words look in pictures of one person, learned with and without the attention loss.

    python -m portrait_world.trials.attention_figure --methods sefi-stages,sefi --person 4 --out attention.png

One row per method: the picture, then one map per word that means something in it. The line above says how much of the person's attention lies inside
the face.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..world import captions
from .contenders import CONTENDERS
from .trial import ATTENTION_TIMESTEP, PROMPTS, Artist, learn, read_faces

_LEFT_OUT = {"a", "an", "of", "on", "in", "the", "and", "wearing", "photo"}  # they look at nothing that can be seen
_LINE = 24  # pixels of the text above a row
_INK = (40, 40, 48)


def word_places(backend, text: str, positions: tuple[int, ...], trigger: str) -> list[tuple[str, tuple[int, ...]]]:
    """The words of a prompt template and the positions of their tokens; the placeholder counts as ``trigger``."""
    from idea_engine.prompts.trigger import PLACEHOLDER

    places, position = [], 1
    for word in text.split():
        count = len(positions) if word == PLACEHOLDER else len(backend.word_ids(word))
        places.append((trigger if word == PLACEHOLDER else word, tuple(range(position, position + count))))
        position += count
    return places


@torch.no_grad()
def word_maps(artist: Artist, text: str, latents: Tensor, seed: int) -> tuple[list[str], Tensor]:
    """The words of ``text`` and where they look: (W, h, w), for latents (1, 4, h, w)."""
    from dataclasses import replace

    from idea_engine.backends.attention_maps import AttentionMaps
    from idea_engine.backends.templates import tokenize_template

    backend, module = artist.backend, artist.module
    prompt = tokenize_template(backend, text, artist.count)
    timesteps = torch.tensor([ATTENTION_TIMESTEP])
    condition, edit = module.read(backend, [prompt], [0], timesteps)
    places = [(word, where) for word, where in word_places(backend, text, prompt.positions, "<anna>") if word not in _LEFT_OUT]
    columns = torch.zeros(condition.context.shape[1], len(places))
    for number, (_, positions) in enumerate(places):
        columns[list(positions), number] = 1.0
    maps = AttentionMaps(columns)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
    backend.predict(latents, noise, timesteps, condition, replace(edit, maps=maps))
    return [word for word, _ in places], maps.picture(latents.shape[-2:], backend.block_scales)[0]


def figure(methods: list[str], split: str, index: int, shot: int, steps: int, seed: int) -> Image.Image:
    """The whole figure."""
    from idea_engine.backends.attention_maps import inside
    from idea_engine.sheets.heat_map import contact_sheet, word_tiles

    rows = []
    text = captions.prompt("{tokens}", PROMPTS[shot])
    for method in methods:
        artist = learn(method, split, index, photos=1, seed=seed, steps=steps).artist
        pictures = artist.draw((PROMPTS[shot],), seed)
        shown = torch.from_numpy(pictures[0].astype(np.float32) / 255)
        latents = artist.backend.encode_images(shown[None])
        words, maps = word_maps(artist, text, latents, seed)
        mask = torch.nn.functional.adaptive_avg_pool2d(read_faces(pictures)[1].masks[0][None], maps.shape[-2:])
        own = float(inside(maps[words.index("<anna>")][None], mask))
        plain = Image.fromarray(pictures[0]).resize((256, 256), Image.Resampling.BICUBIC)
        tiles = word_tiles(maps, words, shown)
        first = Image.new("RGB", tiles[0].size, "white")
        first.paste(plain, (0, 0))
        rows.append((f"{method}: {100 * own:.0f} % of the person's attention lies inside the face", contact_sheet([first, *tiles], columns=len(tiles) + 1)))
    width = max(sheet.width for _, sheet in rows)
    whole = Image.new("RGB", (width, sum(sheet.height + _LINE for _, sheet in rows)), "white")
    draw, top = ImageDraw.Draw(whole), 0
    for title, sheet in rows:
        draw.text((8, top + _LINE / 2 + 2), title, fill=_INK, font=ImageFont.load_default(size=16), anchor="lm")
        whole.paste(sheet, (0, top + _LINE))
        top += _LINE + sheet.height
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m portrait_world.trials.attention_figure", description=__doc__.split("\n")[0])
    parser.add_argument("--methods", default="sefi-stages,sefi", help=f"of {', '.join(CONTENDERS)}")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--person", type=int, default=4)
    parser.add_argument("--prompt", type=int, default=0, help=f"number of the prompt, 0 to {len(PROMPTS) - 1}")
    parser.add_argument("--steps", type=int, default=0, help="training steps; 0 = the recipe's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    figure(chosen.methods.split(","), chosen.split, chosen.person, chosen.prompt, chosen.steps, chosen.seed).save(chosen.out)


if __name__ == "__main__":
    main()
