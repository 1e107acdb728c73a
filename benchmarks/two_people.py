"""``python quickstart.py run python -m benchmarks.two_people``: does one person bleed into the other, when two are in one picture?

    python quickstart.py run python -m benchmarks.two_people --pairs 6 --seeds 2 --json two.json

Two test people at a time are learned from one photograph each, by our default recipe and by plain textual inversion, and drawn side by side
in a real ComfyUI, in one picture twice as wide as the world's own. The judge compares each half with both people. Textual inversion is
drawn through the host's own ``embedding:`` and conditioning nodes; nothing of ours acts on it.
"""
from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

sys.path.append(str(Path(__file__).resolve().parent.parent))

from portrait_world.drawing.portrait import render
from portrait_world.judging.likeness import Scale, has_face, scale
from portrait_world.judging.similarity import shown_as_said
from portrait_world.trials import sampler as drawing
from portrait_world.trials.trial import PROMPTS, learn, reference_photographs
from portrait_world.world import captions
from portrait_world.world.people import SPLITS, person
from portrait_world.world.portrayal import Shot

SIDE = 128  # of the world's pictures, and of each half
SHOTS: tuple[Shot, ...] = tuple(shot for shot in PROMPTS if shot.style == "photo" and shot.accessory == "none")
TRIGGERS = ("<one>", "<two>")  # nobody's names in this world: where a mask turns them to plain text, they are nobody
PHOTOGRAPHS = "photographs"  # the row in which nothing is drawn: what the ruler says of the people themselves
_HEADER, _INK = 18, "#22252a"


@dataclass(frozen=True)
class Arrangement:
    """One way to have two people in a picture.

    Attributes:
        method: a name of CONTENDERS; its identities act through our nodes, or through ``embedding:`` where only tokens are learned.
        layout: ``together``: one prompt names both, and nothing says who is where; ``masks``: the same prompt, and each identity has a
            MASK; ``mask conditions``: a prompt for each, held to its half by Conditioning (Set Mask); ``areas``: a prompt for each, held to
            its half by Conditioning (Set Area), as in example workflow 3.
    """

    method: str
    layout: str

    @property
    def ours(self) -> bool:
        return self.method != "textual-inversion"


ARRANGEMENTS: dict[str, Arrangement] = {
    "ours, a MASK each": Arrangement("balanced", "masks"),
    "ours, one prompt": Arrangement("balanced", "together"),
    "ours, mask conditions": Arrangement("balanced", "mask conditions"),
    "ours, areas": Arrangement("balanced", "areas"),
    "inversion, one prompt": Arrangement("textual-inversion", "together"),
    "inversion, mask conditions": Arrangement("textual-inversion", "mask conditions"),
    "inversion, areas": Arrangement("textual-inversion", "areas"),
}


@dataclass(frozen=True)
class Halves:
    """What the judges say of some pictures of one pair.

    Attributes:
        left_first, left_second, right_first, right_second: (B,) calibrated likeness of a half to a person; ``first`` belongs to the left.
        faces: (B, 2) bool, whether a face was found in each half.
        prompt: share of what the prompt said, over the attributes, that the halves show.
    """

    left_first: np.ndarray
    left_second: np.ndarray
    right_first: np.ndarray
    right_second: np.ndarray
    faces: np.ndarray
    prompt: float


def judge(pictures: np.ndarray, first: Scale, second: Scale, shot: Shot) -> Halves:
    """(B, 128, 256, 3) uint8 of one shot → what each half looks like; a half without a face counts as cosine 0."""
    left, right = pictures[:, :, :SIDE], pictures[:, :, SIDE:]
    faces = np.stack([has_face(left), has_face(right)], 1)
    said = shown_as_said(np.concatenate([left, right]), (shot,) * (2 * len(pictures)))
    likeness = (ruler.likeness(half) for half in (left, right) for ruler in (first, second))
    return Halves(*likeness, faces, float(np.mean(list(said.values()))))


def summary(judged: list[Halves]) -> dict[str, float]:
    """Column → mean over all pictures of all pairs.

    ``own`` and ``other``: likeness of a half to who belongs there and to who belongs beside it. ``right person``: share of halves that are
    more like their own. ``in either order``: share of pictures in which the two halves are the two people, whoever is where.
    """
    columns = ("left_first", "left_second", "right_second", "right_first")
    one, two, three, four = (np.concatenate([getattr(part, name) for part in judged]) for name in columns)
    return {
        "left→first": float(one.mean()), "left→second": float(two.mean()),
        "right→second": float(three.mean()), "right→first": float(four.mean()),
        "own": float((one.mean() + three.mean()) / 2), "other": float((two.mean() + four.mean()) / 2),
        "right person": float(((one > two).mean() + (three > four).mean()) / 2),
        "in either order": float(((one > two) == (three > four)).mean()),
        "no face": float(1 - np.concatenate([part.faces for part in judged]).mean()),
        "prompt": float(np.mean([part.prompt for part in judged])),
    }


def photographed(pair: tuple[int, int], split: str, shot: Shot, count: int) -> np.ndarray:
    """(count, 128, 256, 3) uint8: photographs of the two people themselves in the same scene, side by side."""
    shots = [shot.with_(seed=100 + number) for number in range(count)]
    return np.stack([np.concatenate([render(person(split, index), taken) for index in pair], 1) for taken in shots])


def graph(arrangement: Arrangement, files: tuple[str, str], shot: Shot, pictures: int, seed: int) -> dict:
    """The graph an artist would build for two saved identities (names in models/idea), in API format; its last node shows the pictures."""
    nodes: dict[str, dict] = {}

    def add(kind: str, **inputs) -> Callable[[int], list]:
        number = str(len(nodes) + 1)
        nodes[number] = {"class_type": kind, "inputs": inputs}
        return lambda output=0: [number, output]

    def half(x: int) -> list:
        white, black = add("SolidMask", value=1.0, width=SIDE, height=SIDE), add("SolidMask", value=0.0, width=2 * SIDE, height=SIDE)
        return add("MaskComposite", destination=black(), source=white(), x=x, y=0, operation="add")()

    world = add("IDEA_LoadDemoModel")
    model, clip, vae = world(0), world(1), world(2)
    if arrangement.ours:
        for file, trigger, x in zip(files, TRIGGERS, (0, SIDE)):
            identity = add("IDEA_LoadIdentity", identity=file, trigger=trigger)
            common = dict(model=model, clip=clip, identity=identity(), start_at=0.0, end_at=1.0)
            if arrangement.layout == "masks":
                strengths = dict(token_strength=1.0, adapter_strength=1.0, key_value_strength=1.0)
                applied = add("IDEA_ApplyIDAdapterAdvanced", **common, **strengths, mask=half(x))
            else:
                applied = add("IDEA_ApplyIDAdapter", **common, strength=1.0)
            model, clip = applied(0), applied(1)
    names = TRIGGERS if arrangement.ours else tuple(f"embedding:{Path(file).stem}" for file in files)
    said = lambda subject: add("CLIPTextEncode", clip=clip, text=captions.prompt(subject, shot))()
    if arrangement.layout in ("together", "masks"):
        positive = said(" and ".join(names))
    else:
        parts = []
        for name, x in zip(names, (0, SIDE)):
            if arrangement.layout == "areas":
                parts.append(add("ConditioningSetArea", conditioning=said(name), width=SIDE, height=SIDE, x=x, y=0, strength=1.0)())
            else:
                parts.append(add("ConditioningSetMask", conditioning=said(name), mask=half(x), strength=1.0, set_cond_area="default")())
        positive = add("ConditioningCombine", conditioning_1=parts[0], conditioning_2=parts[1])()
    latent = add("EmptyLatentImage", width=2 * SIDE, height=SIDE, batch_size=pictures)
    negative = add("CLIPTextEncode", clip=clip, text="")
    drawn = add("KSampler", model=model, positive=positive, negative=negative(), latent_image=latent(), seed=seed, steps=drawing.STEPS,
                cfg=drawing.GUIDANCE, sampler_name="euler", scheduler="normal", denoise=1.0)
    add("PreviewImage", images=add("VAEDecode", samples=drawn(), vae=vae)())
    return nodes


def learned_file(folder: Path, method: str, split: str, index: int) -> Path:
    """The identity that a method learns from one photograph of a person; learned where it is not in ``folder`` yet."""
    from idea_engine.identity.file import save_identity

    path = folder / f"{method}-{split}-{index}.safetensors"
    return path if path.is_file() else save_identity(learn(method, split, index, photos=1, seed=0).identity, path)


def draw(client, prompt: dict) -> np.ndarray:
    """(B, 128, 256, 3) uint8: the pictures of a graph's last node."""
    execution = client.run(prompt)
    shown = [Image.open(io.BytesIO(client.picture(picture))).convert("RGB") for picture in execution.pictures(str(len(prompt)))]
    return np.stack([np.asarray(picture) for picture in shown])


def measure(
    pairs: list[tuple[int, int]], split: str, seeds: int, folder: Path, client, base, show,
) -> tuple[dict[str, dict[str, float]], Image.Image]:
    """All pairs in all arrangements: the summaries, and a sheet with one row for each pair."""
    judged: dict[str, list[Halves]] = {name: [] for name in (PHOTOGRAPHS, *ARRANGEMENTS)}
    rows = []
    for number, pair in enumerate(pairs):
        shot, rulers = SHOTS[number % len(SHOTS)], [scale(split, index) for index in pair]
        row = [np.concatenate([reference_photographs(split, index, 1)[0] for index in pair], 1)]
        judged[PHOTOGRAPHS].append(judge(photographed(pair, split, shot, seeds), *rulers, shot))
        for name, arrangement in ARRANGEMENTS.items():
            files = tuple(base.add_identity(learned_file(folder, arrangement.method, split, index)) for index in pair)
            pictures = draw(client, graph(arrangement, files, shot, seeds, seed=number))
            judged[name].append(judge(pictures, *rulers, shot))
            row.append(pictures[0])
            show(name)
        rows.append(np.concatenate(row, 1))
    return {name: summary(parts) for name, parts in judged.items()}, _sheet(rows, ["learned from", *ARRANGEMENTS])


def _sheet(rows: list[np.ndarray], titles: list[str]) -> Image.Image:
    whole = Image.new("RGB", (rows[0].shape[1], _HEADER + SIDE * len(rows)), "white")
    pen = ImageDraw.Draw(whole)
    for column, title in enumerate(titles):
        pen.text(((2 * column + 1) * SIDE, _HEADER / 2), title, _INK, ImageFont.load_default(13), anchor="mm")
    whole.paste(Image.fromarray(np.concatenate(rows)), (0, _HEADER))
    return whole


def markdown(results: dict[str, dict[str, float]]) -> str:
    """The table as the documents show it."""
    columns = list(next(iter(results.values())))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(f"{row[column]:.2f}" for column in columns) + " |" for name, row in results.items()]
    return "\n".join(lines)


def main() -> None:
    import torch
    from tqdm import tqdm

    from launcher.session import any_host, session

    parser = argparse.ArgumentParser(prog="python -m benchmarks.two_people", description=__doc__.split("\n")[0].split(": ", 1)[1])
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=2, help="pictures of each pair and arrangement")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--people-seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--identities", type=Path, help="a folder in which learned people are kept for another run; default: not kept")
    parser.add_argument("--json", type=Path, help="write figures here, and a sheet of pictures beside it")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    chosen = np.random.default_rng(options.people_seed).permutation(SPLITS[options.split])[:2 * options.pairs].tolist()
    pairs = list(zip(chosen[::2], chosen[1::2]))
    host = any_host()
    with tempfile.TemporaryDirectory() as temporary, tqdm(total=len(pairs) * len(ARRANGEMENTS)) as bar:
        folder = options.identities or Path(temporary) / "identities"
        folder.mkdir(parents=True, exist_ok=True)

        def show(name: str) -> None:
            bar.set_description(name)
            bar.update()

        with session(host) as running:
            results, sheet = measure(pairs, options.split, options.seeds, folder, running.client, running.base, show)
    if options.json:
        described = {key: getattr(options, key) for key in ("pairs", "seeds", "split", "people_seed")}
        written = {"host": host.id, "options": described, "mean": results}
        options.json.write_text(json.dumps(written, indent=1, ensure_ascii=False), encoding="utf-8")
        sheet.save(options.json.with_suffix(".png"))
    print(markdown(results))


if __name__ == "__main__":
    main()
