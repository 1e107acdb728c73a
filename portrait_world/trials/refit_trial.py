"""``python -m portrait_world.trials.refit_trial``: is a person brought to another checkpoint more alike than one learned there?

    python -m portrait_world.trials.refit_trial --people 4 --strength 0.1 --json refit.json

Refit Identity's 25 steps are compared with as many from the recipe's own start. The other checkpoint is the shipped model with every weight
matrix of its text encoder and denoiser moved at random by ``strength`` times its own spread: as far away as that in every direction, where a
real fine-tune moves further in a few. The rows ``names`` say what both make of people whom they know by name: how much of a model the other
checkpoint still is, before anybody is learned on it.
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from ..judging.likeness import Scale, scale
from ..judging.similarity import share_shown
from ..world import captions
from ..world.people import SPLITS, names
from .trial import PROMPTS, Artist, Learned, learn, open_backend

RECIPE = "balanced"


@torch.no_grad()
def other_checkpoint(strength: float, seed: int = 0):
    """A backend on a model of the same shapes with other weights; the shipped one is untouched."""
    from idea_engine.backends.diffusers import DiffusersBackend

    from ..pipeline import load_pipeline

    pipe, generator = load_pipeline(), torch.Generator().manual_seed(seed)
    for module in (pipe.text_encoder, pipe.unet):
        for weight in module.parameters():
            if weight.ndim > 1:
                weight += strength * weight.std() * torch.randn(weight.shape, generator=generator)
    return DiffusersBackend(pipe)


def row(pictures: np.ndarray, ruler: Scale) -> dict[str, float]:
    """Calibrated likeness and prompt accuracy of one person's pictures of PROMPTS."""
    return {"likeness": float(ruler.likeness(pictures).mean()), "prompt": share_shown(pictures, PROMPTS)}


def measure(people: list[int], split: str, strength: float, steps: int, show) -> dict[str, dict[str, list[float]]]:
    """Row → column → [mean, standard deviation] over the people."""
    from idea_engine.training.refit import build_from

    old, other = open_backend(), other_checkpoint(strength)
    found: dict[str, list[dict[str, float]]] = {}

    def learned(index: int, backend, steps: int, begin=None) -> Learned:
        return learn(RECIPE, split, index, photos=1, seed=0, steps=steps, backend=backend, begin=begin)

    def note(name: str, pictures: np.ndarray, ruler: Scale) -> None:
        found.setdefault(name, []).append(row(pictures, ruler))
        show(name)

    for index in people:
        known = index % len(names())  # somebody else, whom the model was taught by name
        said, ruler = [captions.prompt(names()[known], shot) for shot in PROMPTS], scale("named", known)
        note("names, old checkpoint", Artist(old).draw_texts(said, 0), ruler)
        note("names, other checkpoint", Artist(other).draw_texts(said, 0), ruler)
        first, ruler = learned(index, old, steps=0), scale(split, index)
        note("learned, old checkpoint", first.artist.draw(PROMPTS, 0), ruler)
        note("the old identity as it is", Artist(other, first.artist.module).draw(PROMPTS, 0), ruler)
        note(f"refit, {steps} steps", learned(index, other, steps, begin=build_from(first.identity)).artist.draw(PROMPTS, 0), ruler)
        note(f"anew, {steps} steps", learned(index, other, steps).artist.draw(PROMPTS, 0), ruler)
        note("anew, the recipe's own steps", learned(index, other, steps=0).artist.draw(PROMPTS, 0), ruler)
    return {name: {column: _mean_std([one[column] for one in rows]) for column in rows[0]} for name, rows in found.items()}


def _mean_std(values: list[float]) -> list[float]:
    return [float(np.mean(values)), float(np.std(values))]


def markdown(results: dict[str, dict[str, list[float]]]) -> str:
    """The table as the documents show it."""
    cell = lambda pair: f"{pair[0]:.3f} ± {pair[1]:.3f}"
    lines = ["| | calibrated likeness | prompt |", "|---|---|---|"]
    lines += [f"| {name} | {cell(columns['likeness'])} | {cell(columns['prompt'])} |" for name, columns in results.items()]
    return "\n".join(lines)


def main() -> None:
    from tqdm import tqdm

    from idea_engine.training.refit import STEPS

    parser = argparse.ArgumentParser(prog="python -m portrait_world.trials.refit_trial", description=__doc__.split("\n")[0].split(": ", 1)[1])
    parser.add_argument("--people", type=int, default=4)
    parser.add_argument("--strength", type=float, default=0.1, help="how far away the other checkpoint is, in spreads of its weights")
    parser.add_argument("--steps", type=int, default=STEPS, help="of refitting, and of the training anew it is compared with (default: %(default)s)")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--people-seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write figures here")
    options = parser.parse_args()
    if min(options.people, options.steps) < 1 or options.strength < 0:
        parser.error("--people and --steps are counted from 1, --strength from 0.")
    torch.set_num_threads(options.threads)
    people = np.random.default_rng(options.people_seed).permutation(SPLITS[options.split])[:options.people].tolist()
    with tqdm(total=7 * len(people)) as bar:
        def show(name: str) -> None:
            bar.set_description(name)
            bar.update()

        results = measure(people, options.split, options.strength, options.steps, show)
    if options.json:
        described = {key: getattr(options, key) for key in ("people", "strength", "steps", "split", "people_seed")}
        options.json.write_text(json.dumps({"options": described, "mean_std": results}, indent=1), encoding="utf-8")
    print(markdown(results))


if __name__ == "__main__":
    main()
