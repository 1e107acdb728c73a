"""``python -m portrait_world.trials.name_positions``: at which positions of an encoded prompt does the model read who somebody is?

    python -m portrait_world.trials.name_positions --people 3,50,120,200,300,333

People whom the model knows by name are drawn from an average name, to which only a part of what is particular to theirs is added: at the
name's own words, or from the end mark on, where a causal text encoder has read the whole prompt. Nothing is trained.
"""
from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..judging.likeness import scale
from ..judging.similarity import share_shown
from ..tokenizer import END, tokenize
from ..world import captions
from ..world.people import SPLITS, names
from .trial import PROMPTS, Artist

_BARE = "a photo of {}"  # where what is particular to a name is taken from


def end_of(text: str) -> int:
    """The position of a prompt's end mark."""
    return int((tokenize([text])[0] == END).int().argmax())


def name_at(text: str, name: str) -> slice:
    """The positions of a two-word name in a prompt, of which every word is one token; the begin mark comes before them."""
    first = text.split().index(name.split()[0]) + 1
    return slice(first, first + 2)


def contexts(artist: Artist) -> dict[str, Callable[[int], Tensor]]:
    """What is read → number of a named person → (prompts, 77, d) text conditions of PROMPTS."""
    everybody = names()

    @torch.no_grad()
    def encoded(texts: list[str]) -> Tensor:
        return artist.backend.encoders["clip_l"](tokenize(texts)).last_hidden_state.float()

    bare = encoded([_BARE.format(name) for name in everybody])
    particular = bare - bare.mean(0)
    end = end_of(_BARE.format(everybody[0]))
    average = torch.stack([encoded([captions.prompt(name, shot) for name in everybody]).mean(0) for shot in PROMPTS])
    said = [captions.prompt(everybody[0], shot) for shot in PROMPTS]
    places = [(name_at(text, everybody[0]), end_of(text)) for text in said]
    own_in_bare = name_at(_BARE.format(everybody[0]), everybody[0])

    def changed(index: int, own: bool = False, behind: bool = False, one_vector: bool = False) -> Tensor:
        found = average.clone()
        for row, (place, first) in enumerate(places):
            if own:
                found[row, place] += particular[index, own_in_bare]
            if one_vector:
                found[row, first:] += particular[index, end]
            elif behind:
                found[row, first:] += particular[index, end : end + found.shape[1] - first]
        return found

    return {
        "the name": lambda index: encoded([captions.prompt(everybody[index], shot) for shot in PROMPTS]),
        "an average name": lambda index: changed(index),
        "… with what is particular at its own words": lambda index: changed(index, own=True),
        "… from the end mark on": lambda index: changed(index, behind=True),
        "… at both": lambda index: changed(index, own=True, behind=True),
        "… one vector, the end mark's, from the end mark on": lambda index: changed(index, one_vector=True),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m portrait_world.trials.name_positions", description=__doc__.split("\n")[0].split(": ", 1)[1])
    parser.add_argument("--people", default="3,50,120,200,300,333", help="numbers of named people (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    people = [int(number) for number in options.people.split(",")]
    if not all(0 <= index < SPLITS["named"] for index in people):
        parser.error(f"There are {SPLITS['named']} named people, counted from 0.")
    torch.set_num_threads(options.threads)
    artist = Artist()
    print("| what the model reads | calibrated likeness | prompt |\n|---|---|---|")
    for what, context in contexts(artist).items():
        drawn = {index: artist.draw_conditions(context(index), seed=0) for index in people}
        likeness = np.mean([scale("named", index).likeness(pictures).mean() for index, pictures in drawn.items()])
        prompt = np.mean([share_shown(pictures, PROMPTS) for pictures in drawn.values()])
        print(f"| {what} | {likeness:.3f} | {prompt:.3f} |", flush=True)


if __name__ == "__main__":
    main()
