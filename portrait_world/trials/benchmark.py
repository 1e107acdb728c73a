"""``python -m portrait_world.benchmark``: every method, the same people, the same prompts, one judge that took no part.

    python -m portrait_world.benchmark --methods textual-inversion,cross-init,fast --people 8 --photos 1 --seeds 3 \\
        --split test --people-seed 0 --json out.json

Prints a table and writes the figures and a contact sheet (rows people, columns methods, first column the photograph).
"""
from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..judging.likeness import CROWD, crowd, scale
from ..judging.similarity import judge_embeddings, share_shown, shown_as_said
from ..world.people import SPLITS
from ..world.portrayal import ATTRIBUTES
from .contenders import CONTENDERS
from .trial import PROMPTS, Trial, reference_photographs, run_trial


@dataclass(frozen=True)
class Score:
    """The figures of one trial.

    Attributes:
        likeness: judge's cosine to the person's other photographs, mean over the pictures; a missing face counts 0.
        calibrated: likeness on the scale where the person's own other photographs are 1 and strangers are 0.
        rank: the person's place among CROWD people, 1 is best.
        copying: likeness to the training photograph beyond likeness to the person.
        missed: share of pictures in which the face pack finds no face.
        prompt: attribute → share of pictures that show what the prompt said.
        by_step: step → calibrated likeness and prompt accuracy at that step.
        inside: share of the attention of the person's words inside the face; None where it cannot be told.
    """

    likeness: float
    calibrated: float
    rank: float
    copying: float
    missed: float
    prompt: dict[str, float]
    by_step: dict[int, tuple[float, float]]
    drift: float
    seconds: float
    peak_megabytes: float
    inside: float | None = None


def score(trial: Trial, split: str, index: int, photos: int) -> Score:
    """Judge one trial."""
    ruler = scale(split, index)
    centre = torch.nn.functional.normalize(ruler.own.mean(0), dim=0)
    vectors = judge_embeddings(trial.pictures)
    seen = torch.tensor([face is not None for face in trial.faces]).float()
    raw = (vectors @ ruler.own.T).mean(1)
    likeness = float((raw * seen).mean())
    known = crowd(split).clone()
    known[index] = centre
    places = ((vectors @ known.T) > (vectors @ centre)[:, None]).sum(1) + 1
    reference = judge_embeddings(reference_photographs(split, index, photos))
    # how much nearer to the very photograph than an honest other photograph of the person is
    copying = float((vectors @ reference.T).mean() - (ruler.own @ reference.T).mean()) - (float(raw.mean()) - ruler.ceiling)
    prompt = shown_as_said(trial.pictures, PROMPTS)
    by_step = {step: (float(ruler.likeness(pictures).mean()), share_shown(pictures, PROMPTS)) for step, pictures in trial.by_step.items()}
    return Score(
        likeness, ruler.calibrated(likeness), float(places.float().mean()), copying, 1 - float(seen.mean()), prompt, by_step,
        trial.drift, trial.seconds, trial.peak_megabytes, trial.inside,
    )


def summary(scores: list[Score]) -> dict[str, list[float]]:
    """Column → [mean, standard deviation] over people and seeds."""
    columns = {
        "likeness": [s.likeness for s in scores], "calibrated": [s.calibrated for s in scores], f"rank/{CROWD}": [s.rank for s in scores],
        "copying": [s.copying for s in scores], "missed": [s.missed for s in scores],
        **{field: [s.prompt[field] for s in scores] for field in ATTRIBUTES},
        "drift": [s.drift for s in scores], "seconds": [s.seconds for s in scores], "MB": [s.peak_megabytes for s in scores],
    }
    if told := [s.inside for s in scores if s.inside is not None]:
        columns["inside"] = told
    for step in scores[0].by_step:
        for place, what in enumerate(("at", "prompt at")):
            columns[f"{what} {step}"] = [s.by_step[step][place] for s in scores if step in s.by_step]
    return {name: [round(float(np.mean(values)), 4), round(float(np.std(values)), 4)] for name, values in columns.items()}


def table(results: dict[str, dict[str, list[float]]]) -> str:
    """A plain-text table, one line per method."""
    columns = list(dict.fromkeys(column for row in results.values() for column in row))
    width = max(len(name) for name in results) + 2
    lines = ["".ljust(width) + "".join(column.rjust(15) for column in columns)]
    for name, row in results.items():
        cells = [f"{row[c][0]:.3f} ± {row[c][1]:.3f}" if c in row else "" for c in columns]
        lines.append(name.ljust(width) + "".join(cell.rjust(15) for cell in cells))
    return "\n".join(lines)


def prompt_accuracy(row: dict[str, list[float]]) -> float:
    """The mean over the attributes of a summary's row."""
    return float(np.mean([row[field][0] for field in ATTRIBUTES]))


def markdown(results: dict[str, dict[str, list[float]]]) -> str:
    """The columns that matter most, as the documents show them; what a row does not know is left empty."""
    lines = [f"| method | calibrated likeness | rank of {CROWD} | prompt | " + " | ".join(ATTRIBUTES) + " | copying | inside | missed | drift | seconds |"]
    lines.append("|---" * (9 + len(ATTRIBUTES)) + "|")
    for name, row in results.items():
        cells = [
            f"`{name}`", "{:.3f} ± {:.3f}".format(*row["calibrated"]), f"{row[f'rank/{CROWD}'][0]:.1f}", f"**{prompt_accuracy(row):.3f}**",
            *(f"{row[field][0]:.2f}" for field in ATTRIBUTES), "{:.3f} ± {:.3f}".format(*row["copying"]),
            f"{row['inside'][0]:.2f}" if "inside" in row else "", f"{row['missed'][0]:.3f}",
            f"{row['drift'][0]:.2f}", f"{row['seconds'][0]:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def run(methods: list[str], people: int, photos: int, seeds: int, split: str, people_seed: int, steps: int, stops: tuple[int, ...], show) -> tuple[dict, np.ndarray]:
    """All trials; returns the summaries and the contact sheet."""
    chosen = np.random.default_rng(people_seed).permutation(SPLITS[split])[:people]
    results, sheet = {}, [[reference_photographs(split, int(i), 1)[0]] for i in chosen]
    for method in methods:
        scores = []
        for row, index in enumerate(chosen):
            for seed in range(seeds):
                given = CONTENDERS[method].photos or photos
                trial = run_trial(method, split, int(index), given, seed, steps, stops)
                scores.append(score(trial, split, int(index), given))
                show(method)
                if seed == 0:
                    sheet[row].append(trial.pictures[row % len(PROMPTS)])
        results[method] = summary(scores)
    return results, np.concatenate([np.concatenate(row, 1) for row in sheet])


def main() -> None:
    from tqdm import tqdm

    parser = argparse.ArgumentParser(prog="python -m portrait_world.benchmark", description=__doc__.split("\n")[0])
    parser.add_argument("--methods", default="base,textual-inversion,balanced,faceclip", help=f"of {', '.join(CONTENDERS)}")
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--photos", type=int, default=1, help="reference photographs per person")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--people-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=0, help="training steps for every method; 0 = each method's own")
    parser.add_argument("--stops", default="", help="steps at which likeness and prompt are measured on the way, such as 25,50")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, default=None, help="write figures here, and a sheet of each method beside it; what is there already is not run again")
    parser.add_argument("--markdown", action="store_true", help="print the table as the documents show it")
    parser.add_argument("--quick", action="store_true", help="2 people, 1 seed, 40 steps: minutes")
    options = parser.parse_args()
    methods = options.methods.split(",")
    unknown = [name for name in methods if name not in CONTENDERS]
    if unknown:
        parser.error(f"no such method: {', '.join(unknown)}. Known: {', '.join(CONTENDERS)}")
    if options.quick:
        options.people, options.seeds, options.steps, options.stops = 2, 1, options.steps or 40, "20"
    torch.set_num_threads(options.threads)
    kept = _kept(options)
    stops = tuple(int(step) for step in options.stops.split(",") if step)
    results = {method: kept[method] for method in methods if method in kept}
    left = [method for method in methods if method not in kept]
    with tqdm(total=len(left) * options.people * options.seeds) as bar:
        def show(method: str) -> None:
            bar.set_description(method)
            bar.update()

        for method in left:  # one after another, so that what is finished is kept
            made, sheet = run([method], options.people, options.photos, options.seeds, options.split, options.people_seed, options.steps, stops, show)
            results |= made
            kept |= made
            if options.json:
                options.json.write_text(json.dumps({"options": _options(options), "mean_std": kept}, indent=1), encoding="utf-8")
                Image.fromarray(sheet).save(options.json.with_name(f"{options.json.stem}-{method}.png"))
    print(markdown(results) if options.markdown else table(results))


def _options(options: argparse.Namespace) -> dict:
    """What the figures depend on."""
    return {key: getattr(options, key) for key in ("people", "photos", "seeds", "split", "people_seed", "steps")}


def _kept(options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """What an earlier run with the same options has written; nothing when there is none."""
    if options.json is None or not options.json.is_file():
        return {}
    earlier = json.loads(options.json.read_text(encoding="utf-8"))
    return earlier["mean_std"] if earlier["options"] == _options(options) else {}


if __name__ == "__main__":
    main()
