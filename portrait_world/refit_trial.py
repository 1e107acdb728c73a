"""``python -m portrait_world.refit_trial``: is a person brought to another checkpoint more alike than one learned there?

    python -m portrait_world.refit_trial --people 4 --strength 0.1 --json refit.json

Refit Identity's 25 steps are compared with as many from the recipe's own start. The other checkpoint is the shipped model with every weight
matrix of its text encoder and denoiser moved at random by ``strength`` times its own spread: as far away as that in every direction, where a
real fine-tune moves further in a few. The rows ``names`` say what both make of the people they know.
"""
from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np
import torch

from . import captions
from .likeness import scale
from .people import SPLITS, names
from .similarity import shown_as_said
from .trial import PROMPTS, Artist, anchor_of_names, open_backend, read_faces, reference_photographs

RECIPE = "balanced"


@torch.no_grad()
def other_checkpoint(strength: float, seed: int = 0):
    """A backend on a model of the same shapes with other weights; the shipped one is untouched."""
    from idea_engine.backends.diffusers import DiffusersBackend

    from .pipeline import load_pipeline

    pipe, generator = load_pipeline(), torch.Generator().manual_seed(seed)
    for module in (pipe.text_encoder, pipe.unet):
        for weight in module.parameters():
            if weight.ndim > 1:
                weight += strength * weight.std() * torch.randn(weight.shape, generator=generator)
    pipe.unet.to(torch.bfloat16)
    return DiffusersBackend(pipe)


def anchor_on(backend):
    """The anchor of the world's names on a backend."""
    from idea_engine.anchors import compute_anchor

    return anchor_of_names() if backend is open_backend() else compute_anchor(backend, names())


def trained(backend, anchor, split: str, index: int, steps: int, refitted=None):
    """Learn a person from one photograph.

    Args:
        steps: 0 for the recipe's own.
        refitted: an identity to begin from, as Refit Identity does; None for the recipe's own start.

    Returns:
        The identity and the module, for :class:`Artist`.
    """
    from idea_engine.methods import build as anew
    from idea_engine.refit import build_from
    from idea_engine.train import train
    from idea_engine.train_config import TrainConfig
    from idea_engine.types import EnhancedIdentity

    photos, face = read_faces(reference_photographs(split, index, 1))
    enhanced = EnhancedIdentity(family=backend.family, face=face.mean(), anchor=anchor, seed=0, masks=face.masks)
    modules = []

    def build(*arguments):
        modules.append((anew if refitted is None else build_from(refitted))(*arguments))
        return modules[-1]

    config = TrainConfig(recipe=RECIPE, trigger="<anna>", steps=steps, resolution=128, seed=0)
    identity, _ = train(backend, enhanced, photos, config, masks=face.masks, build=build)
    return identity, modules[-1]


def row(pictures: np.ndarray, ruler=None) -> dict[str, float]:
    """Calibrated likeness and prompt accuracy of one person's pictures of PROMPTS; no likeness without a ruler."""
    prompt = float(np.mean(list(shown_as_said(pictures, PROMPTS).values())))
    return {"likeness": float("nan") if ruler is None else float(ruler.likeness(pictures).mean()), "prompt": prompt}


def measure(people: list[int], split: str, strength: float, steps: int, show) -> dict[str, dict[str, list[float]]]:
    """Row → column → [mean, standard deviation] over the people."""
    old, other = open_backend(), other_checkpoint(strength)
    anchors = {backend: anchor_on(backend) for backend in (old, other)}
    found: dict[str, list[dict[str, float]]] = {}

    def note(name: str, backend, index: int, module) -> None:
        found.setdefault(name, []).append(row(Artist(backend, module).draw(PROMPTS, 0), scale(split, index)))
        show(name)

    for index in people:
        for name, backend in (("names, old checkpoint", old), ("names, other checkpoint", other)):
            said = [captions.prompt(names()[index % len(names())], shot) for shot in PROMPTS]
            found.setdefault(name, []).append(row(Artist(backend).draw_texts(said, 0)))
            show(name)
        learn = partial(trained, split=split, index=index)
        identity, module = learn(old, anchors[old], steps=0)
        note("learned, old checkpoint", old, index, module)
        note("the old identity as it is", other, index, module)
        note(f"refit, {steps} steps", other, index, learn(other, anchors[other], steps=steps, refitted=identity)[1])
        note(f"anew, {steps} steps", other, index, learn(other, anchors[other], steps=steps)[1])
        note("anew, the recipe's own steps", other, index, learn(other, anchors[other], steps=0)[1])
    return {name: {column: _mean_std([one[column] for one in rows]) for column in rows[0]} for name, rows in found.items()}


def _mean_std(values: list[float]) -> list[float]:
    return [float(np.mean(values)), float(np.std(values))]


def markdown(results: dict[str, dict[str, list[float]]]) -> str:
    """The table as the documents show it."""
    cell = lambda pair: "" if np.isnan(pair[0]) else f"{pair[0]:.3f} ± {pair[1]:.3f}"
    lines = ["| | calibrated likeness | prompt |", "|---|---|---|"]
    lines += [f"| {name} | {cell(columns['likeness'])} | {cell(columns['prompt'])} |" for name, columns in results.items()]
    return "\n".join(lines)


def main() -> None:
    from idea_engine.refit import STEPS
    from tqdm import tqdm

    parser = argparse.ArgumentParser(prog="python -m portrait_world.refit_trial", description=__doc__.split("\n")[0].split(": ", 1)[1])
    parser.add_argument("--people", type=int, default=4)
    parser.add_argument("--strength", type=float, default=0.1, help="how far away the other checkpoint is, in spreads of its weights")
    parser.add_argument("--steps", type=int, default=STEPS, help="of refitting, and of the training anew it is compared with")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--people-seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write figures here")
    options = parser.parse_args()
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
