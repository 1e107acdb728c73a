"""``idea-engine check``: do our recipes' rates fit this base model?"""
from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

import torch
from torch import Tensor

from idea_engine.errors import EvaluationError, TrainingError
from idea_engine.judging.base_advice import FOLDER, RATES, RateResult, advice_json, advise, base_hash
from idea_engine.judging.likeness import COPYING_WARNING, copying, score_likeness
from idea_engine.methods import RECIPES
from idea_engine.prompts.trigger import scene_of
from idea_engine.sheets.contact import contact_sheet

NAME = "check"
SUMMARY = "Learn one person on a base model with each of our recipes at three rates, and say whether the rates fit it."
EPILOG = """\
examples:
  idea-engine check --model demo --photos example_workflows/anna.png -o check
  idea-engine check --model models/sd15 --face-pack models/buffalo_l --photos anna -o check --keep ComfyUI/models/idea

Ten minutes on a graphics card. OUT/report.html says in words whether a recipe's rate fits the model, is too hot or too cold, and shows the pictures;
OUT/check.json holds the figures and the advice, and no face, no photograph and no name. With --keep the advice is put where Train Identity and
Refit Identity find it for this very model; idea-engine train takes it with --bases.

Of several photographs the first is learned from and the others are compared with; two others make the likeness comparable.
"""
TRIGGER = "<person>"
_PRESETS = tuple(name for name, recipe in RECIPES.items() if recipe.relative)
_PROMPTS = 4
_WORLD_HELD_OUT = 4  # drawn photographs of the demo model's person, none of them learned from


def arguments(parser: argparse.ArgumentParser) -> None:
    from .drawing import drawing_arguments
    from .faces import face_arguments
    from .models import model_arguments

    parser.add_argument("--photos", nargs="+", required=True, metavar="PHOTO", help="photographs of one person, or a folder of them")
    parser.add_argument("-o", "--output", default="check", metavar="DIR", help="where the report goes (default: %(default)s)")
    parser.add_argument("--keep", metavar="DIR", help=f"ComfyUI's models/idea folder: the advice is put into {FOLDER} there and used from then on")
    parser.add_argument("--recipes", default=",".join(_PRESETS), metavar="NAMES", help="which recipes, separated by commas (default: %(default)s)")
    parser.add_argument("--train-steps", type=int, default=0, metavar="N", help="training steps; default: each recipe's own number. Fewer give a quick look, not advice")
    parser.add_argument("--prompts", type=int, default=_PROMPTS, metavar="N", help="how many of the evaluation prompts are drawn (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of training and pictures (default: 0)")
    parser.add_argument("--judge", metavar="DIR", help="another face pack, which took no part in the training, to judge likeness; default: the same one, which flatters")
    parser.add_argument("--clip", metavar="DIR", help="a CLIP model in transformers' layout to judge the prompt; default: how much of the scene stays as it is without the person")
    drawing_arguments(parser)
    model_arguments(parser)
    face_arguments(parser)


@dataclass(frozen=True)
class Judged:
    """One picture: the judge's embedding or None, how much of its prompt it shows, and the picture (H, W, 3)."""

    vector: Tensor | None
    prompt: float
    picture: Tensor


def run(options: argparse.Namespace) -> int:
    from idea_engine.files.atomic_write import atomic_write

    from .pictures import write_picture

    recipes = [name for name in options.recipes.split(",") if name]
    if unknown := [name for name in recipes if name not in _PRESETS]:
        raise EvaluationError(f"--recipes names {', '.join(unknown)}, expected some of {', '.join(_PRESETS)}: the others have their authors' rates.")
    if not recipes or options.prompts < 1 or options.train_steps < 0:
        raise EvaluationError("There is nothing to check: expected at least one recipe and one prompt, and no negative number of steps.")
    if options.keep and options.train_steps:
        raise EvaluationError("--keep keeps advice, but with --train-steps the recipes are cut short, which says little of their rates. Leave one of them out.")
    folder = Path(options.output)
    checker = _Checker(options)
    tried: dict[str, list[RateResult]] = {}
    rows, captions = [[*checker.shown, *checker.plain]], [["photograph"] * len(checker.shown) + ["without the person"] * len(checker.plain)]
    for name in recipes:
        tried[name] = []
        for rate in RATES:
            result, pictures = checker.try_rate(name, rate)
            tried[name].append(result)
            said = f"{name} × {rate:g}: likeness {result.likeness:.2f}, prompt {result.prompt:.2f}, copies {result.copies:.0%}, faces {result.faces:.0%}"
            print(said if result.finite else f"{said}; the loss was not finite", flush=True)
            rows.append([*checker.shown, *pictures])
            captions.append([f"{name}, {rate:g} times"] * len(rows[-1]))
    advice = {name: (advise(name, results), results) for name, results in tried.items()}
    facts = {
        "width": checker.backend.family.context_width, "trained_steps": options.train_steps or "each recipe's own", "judge": checker.judge.recognizer,
        "prompt_by": checker.prompt_by, "calibrated": checker.calibrated, "pictures": len(checker.prompts), "precision": str(checker.backend.unet.dtype).split(".")[-1],
    }
    kept = advice_json(checker.base, checker.backend.family.name, advice, facts)
    notes = list(checker.notes)
    if options.train_steps:
        notes.append("The recipes were cut short (--train-steps), so this says little of their rates.")
    folder.mkdir(parents=True, exist_ok=True)
    sheet = contact_sheet(rows, captions)
    write_picture(sheet, folder / "sheet.png")
    atomic_write(folder / "check.json", kept)
    atomic_write(folder / "report.html", _report(advice, facts, notes, sheet).encode())
    for note in notes:
        print(f"note: {note}")
    for one, _ in advice.values():
        print(one.says)
    if options.keep:
        place = Path(options.keep) / FOLDER / f"{checker.base}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(place, kept)
        print(f"kept as {place}")
    print(folder / "report.html")
    return 0


class _Checker:
    """The model, the person and the judges, loaded once; learns and draws the person at one rate after another."""

    def __init__(self, options: argparse.Namespace):
        from idea_engine.backends.diffusers import DiffusersBackend
        from idea_engine.faces.embed import embed_faces
        from idea_engine.files.pictures import read_photo
        from idea_engine.identity.anchor import compute_anchor
        from idea_engine.identity.enhanced import EnhancedIdentity

        from .demo import world_photographs
        from .drawing import Drawing
        from .evaluate import _prompts, open_judge
        from .faces import open_pack
        from .judging import PromptJudge
        from .models import load_model
        from .pictures import photo_files

        self.options, self.notes, demo = options, [], options.model == "demo"
        encoder = open_pack(options.face_pack, options, demo=demo)
        photos = [read_photo(file) for file in photo_files(options.photos)]
        face = embed_faces(encoder, photos[:1], options.choose, options.index)
        if options.judge is None and not demo:
            options.judge = options.face_pack
            self.notes.append("Likeness is judged by the face pack that finds the face (--judge names another), which flatters every rate alike.")
        self.judge = open_judge(options, demo)
        model = load_model(options)
        self.pipe, self.drawing = model.pipe, Drawing.of(options, model)
        self.pipe.set_progress_bar_config(disable=True)
        self.backend, self.side = DiffusersBackend(model.pipe), model.side
        self.base = base_hash(self.backend.unet.state_dict().items())
        self.photos, self.face = photos[:1], face
        self.enhanced = EnhancedIdentity(
            self.backend.family, face.mean(), compute_anchor(self.backend, model.names), options.seed, recognizer=face.recognizer, licence=face.licence,
            masks=face.masks,
        )
        others = photos[1:]
        if demo and not others:
            from portrait_world.drawing import anna

            others = world_photographs(anna.SPLIT, anna.INDEX, _WORLD_HELD_OUT)
        trained = self.judge.measure(photos[0])
        if trained is None:
            raise EvaluationError("The judge finds no face in the first photograph. Give one in which eyes and mouth are visible.")
        measured = [vector for photo in others if (vector := self.judge.measure(photo)) is not None]
        self.training, self.references = trained[None], torch.stack(measured) if measured else trained[None]
        self.calibrated = len(measured) > 1
        if not measured:
            self.notes.append("There is one photograph only, so likeness is the cosine to the very photograph that was learned from; give three or more.")
        elif not self.calibrated:
            self.notes.append("There is one photograph to compare with only, so likeness is a cosine; give three or more photographs.")
        self.prompts = _prompts(None, demo)[: options.prompts]
        self.critic, self.demo = PromptJudge(options.clip) if options.clip else None, demo
        self.shown = photos[:1]
        # What the model makes of the prompts without the person: what the scene should be.
        self.plain = [self._draw(prompt.replace("{tokens}", "a person"), number) for number, prompt in enumerate(self.prompts)]
        again = [self._draw(prompt.replace("{tokens}", "a person"), number + 500) for number, prompt in enumerate(self.prompts)]
        self._chance = [_distance(one, other, None) for one, other in zip(self.plain, again)]
        self.prompt_by = "CLIP, in shares of the picture without the person" if self.critic else "how much of the scene stays as it is without the person"

    def try_rate(self, recipe: str, rate: float) -> tuple[RateResult, list[Tensor]]:
        """Learn the person at ``rate`` times the recipe's own, draw the prompts, judge; and the pictures."""
        from idea_engine.applying.diffusers import applied
        from idea_engine.training.config import TrainConfig
        from idea_engine.training.loop import train

        from .train import Bar

        options, finite = self.options, True
        config = TrainConfig(
            recipe=recipe, trigger=TRIGGER, steps=options.train_steps, lr=RECIPES[recipe].lr * rate, resolution=self.side, seed=options.seed,
        )
        bar = Bar(f"{recipe} × {rate:g}", config.resolved().steps, 0)
        try:
            identity, report = train(self.backend, self.enhanced, self.photos, config, masks=self.face.masks, on_step=bar)
            finite = not report.skipped and all(math.isfinite(loss) for loss in report.losses)
        except TrainingError as error:
            if "not finite" not in str(error):
                raise
            return RateResult(rate, 0.0, 0.0, 0.0, 0.0, finite=False), []
        finally:
            bar.close()
        with applied(self.pipe, [self.drawing.acting(identity)]):
            pictures = [self._draw(prompt.replace("{tokens}", TRIGGER), number) for number, prompt in enumerate(self.prompts)]
        judged = [Judged(self.judge.measure(picture), self._shows(picture, number), picture) for number, picture in enumerate(pictures)]
        return self._result(rate, judged, finite), pictures

    def _draw(self, text: str, number: int) -> Tensor:
        import numpy as np

        drawn = self.drawing.draw(self.pipe, text, self.options.seed + 1000 * number)
        return torch.from_numpy(np.asarray(drawn.convert("RGB"), dtype=np.float32) / 255)

    def _shows(self, picture: Tensor, number: int) -> float:
        """How much of its prompt a picture shows, 0..1."""
        if self.critic is not None:
            scene = scene_of(self.prompts[number])
            return min(1.0, max(0.0, self.critic.score(picture, scene)) / max(1e-3, self.critic.score(self.plain[number], scene)))
        apart = _distance(picture, self.plain[number], self._head(picture))
        return min(1.0, max(0.0, 1.0 - apart / max(1e-4, self._chance[number])))

    def _head(self, picture: Tensor) -> Tensor | None:
        """Where the person is, who may change: the head of the person drawn, None where there is none."""
        from idea_engine.faces.mask import face_mask
        from idea_engine.faces.photo import to_pixels
        from idea_engine.faces.search import plain_faces

        from .faces import open_pack

        if not hasattr(self, "_encoder"):
            self._encoder = open_pack(self.options.face_pack, self.options, demo=self.demo)
        faces = plain_faces(self._encoder, to_pixels(picture))
        if not faces:
            return None
        face = max(faces, key=lambda one: one.area)
        return face_mask(torch.from_numpy(face.box), torch.from_numpy(face.landmarks), *picture.shape[:2])

    def _result(self, rate: float, judged: Sequence[Judged], finite: bool) -> RateResult:
        found = torch.tensor([one.vector is not None for one in judged])
        rows = torch.stack([torch.zeros_like(self.training[0]) if one.vector is None else one.vector for one in judged])
        scored = score_likeness(rows, found, self.references)
        others = self.references if self.calibrated else None
        copies = copying(rows, found, self.training, others)
        return RateResult(
            rate=rate, likeness=scored.mean if scored.calibrated is None else scored.calibrated,
            prompt=sum(one.prompt for one in judged) / len(judged), copies=float((copies >= COPYING_WARNING).float().mean()),
            faces=float(found.float().mean()), finite=finite,
        )


def _distance(one: Tensor, other: Tensor, without: Tensor | None) -> float:
    """Mean absolute difference of two pictures (H, W, 3), seen from afar, outside of a mask."""
    blur = lambda picture: torch.nn.functional.adaptive_avg_pool2d(picture.movedim(-1, 0)[None], 32)[0]  # noqa: E731
    apart = (blur(one) - blur(other)).abs().mean(0)
    if without is None:
        return float(apart.mean())
    weights = 1.0 - torch.nn.functional.adaptive_avg_pool2d(without[None], 32)[0]
    return float((apart * weights).sum() / weights.sum().clamp_min(1e-6))


def _report(advice, facts, notes: Sequence[str], sheet: Tensor) -> str:
    """The page: what to do, the figures, the sheet."""
    import base64
    import io
    from html import escape

    from PIL import Image

    from .report import page

    stream = io.BytesIO()
    Image.fromarray((sheet.clamp(0, 1) * 255).round().to(torch.uint8).numpy()).save(stream, "JPEG", quality=88)
    parts = ["<h1>Do the recipes' rates fit this model?</h1>", *(f"<p><b>{escape(one.says)}</b></p>" for one, _ in advice.values())]
    if notes:
        parts.append("<div class=notes>" + "<br>".join(map(escape, notes)) + "</div>")
    columns = ("likeness", "prompt", "copies", "faces", "worth")
    head = "".join(f"<th>{name}</th>" for name in columns)
    body = "".join(
        f"<tr><td>{escape(name)} × {one.rate:g}</td>" + "".join(f"<td>{getattr(one, column):.2f}</td>" for column in columns) + "</tr>"
        for name, (_, results) in advice.items() for one in results
    )
    parts.append(f"<h2>Figures</h2><table><tr><th>recipe × rate</th>{head}</tr>{body}</table>")
    parts.append(
        f"<p class=legend>Prompt: {escape(str(facts['prompt_by']))}. Worth, by which the rate is chosen: likeness × prompt, less for copies. "
        "The first row of the sheet: the photograph, and the prompts without the person.</p>"
    )
    parts.append(f"<img alt='the pictures' style='max-width:100%' src='data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}'>")
    return page("Do the recipes' rates fit this model?", "".join(parts))
