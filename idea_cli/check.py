"""``idea-engine check``: do our recipes' rates fit this base model?"""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Sequence

import torch
from torch import Tensor

from idea_engine.errors import EvaluationError
from idea_engine.judging.base_advice import FOLDER, RATES, RateResult, base_hash, keep_advice
from idea_engine.prompts.trigger import PLACEHOLDER
from idea_engine.training.base_check import PRESETS, PROMPTS, TRIGGER, BaseCheck, check_config, said

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
_WORLD_HELD_OUT = 4  # drawn photographs of the demo model's person, none of them learned from


def arguments(parser: argparse.ArgumentParser) -> None:
    from .drawing import drawing_arguments
    from .faces import face_arguments
    from .models import model_arguments

    parser.add_argument("--photos", nargs="+", required=True, metavar="PHOTO", help="photographs of one person, or a folder of them")
    parser.add_argument("-o", "--output", default="check", metavar="DIR", help="where the report goes (default: %(default)s)")
    parser.add_argument("--keep", metavar="DIR", help=f"ComfyUI's models/idea folder: the advice is put into {FOLDER} there and used from then on")
    parser.add_argument("--recipes", default=",".join(PRESETS), metavar="NAMES", help="which recipes, separated by commas (default: %(default)s)")
    parser.add_argument("--train-steps", type=int, default=0, metavar="N", help="training steps; default: each recipe's own number. Fewer give a quick look, not advice")
    parser.add_argument("--prompts", type=int, default=PROMPTS, metavar="N", help="how many of the evaluation prompts are drawn (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of training and pictures (default: 0)")
    parser.add_argument("--judge", metavar="DIR", help="another face pack, which took no part in the training, to judge likeness; default: the same one, which flatters")
    parser.add_argument("--clip", metavar="DIR", help="a CLIP model in transformers' layout to judge the prompt; default: how much of the scene stays as it is without the person")
    drawing_arguments(parser)
    model_arguments(parser)
    face_arguments(parser)


def run(options: argparse.Namespace) -> int:
    from idea_engine.files.atomic_write import atomic_write

    from .pictures import write_picture

    recipes = [name for name in options.recipes.split(",") if name]
    if unknown := [name for name in recipes if name not in PRESETS]:
        raise EvaluationError(f"--recipes names {', '.join(unknown)}, expected some of {', '.join(PRESETS)}: the others have their authors' rates.")
    if not recipes or options.prompts < 1 or options.train_steps < 0:
        raise EvaluationError("There is nothing to check: expected at least one recipe and one prompt, and no negative number of steps.")
    if options.keep and options.train_steps:
        raise EvaluationError("--keep keeps advice, but with --train-steps the recipes are cut short, which says little of their rates. Leave one of them out.")
    folder = Path(options.output)
    checker = _Checker(options)
    check = checker.check
    for name in recipes:
        for rate in RATES:
            print(said(name, checker.try_rate(name, rate)), flush=True)
    advice = check.advice()
    backend = checker.backend
    facts = check.facts(backend.family.context_width, checker.judge.recognizer, str(backend.unet.dtype).split(".")[-1], options.train_steps)
    kept = check.kept(checker.base, backend.family.name, facts)
    notes = [*checker.notes, *check.notes]
    if options.train_steps:
        notes.append("The recipes were cut short (--train-steps), so this says little of their rates.")
    folder.mkdir(parents=True, exist_ok=True)
    sheet = check.sheet()
    write_picture(sheet, folder / "sheet.png")
    atomic_write(folder / "check.json", kept)
    atomic_write(folder / "report.html", _report(advice, facts, notes, sheet).encode())
    for note in notes:
        print(f"note: {note}")
    for one, _ in advice.values():
        print(one.says)
    if options.keep:
        print(f"kept as {keep_advice(Path(options.keep), checker.base, kept)}")
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
        self._pipe, self._drawing = model.pipe, Drawing.of(options, model)
        self._pipe.set_progress_bar_config(disable=True)
        self.backend, self._side = DiffusersBackend(model.pipe), model.side
        self.base = base_hash(self.backend.unet.state_dict().items())
        self._photos, self._masks = photos[:1], face.masks
        self._enhanced = EnhancedIdentity(
            self.backend.family, face.mean(), compute_anchor(self.backend, model.names), options.seed, recognizer=face.recognizer, licence=face.licence,
            masks=face.masks,
        )
        others = photos[1:]
        if demo and not others:
            from portrait_world.drawing import anna

            others = world_photographs(anna.SPLIT, anna.INDEX, _WORLD_HELD_OUT)
        self.check = BaseCheck(
            photos[0], others, _prompts(None, demo)[: options.prompts], measure=self.judge.measure, encoder=encoder, draw=self._draw,
            critic=PromptJudge(options.clip) if options.clip else None,
        )

    def try_rate(self, recipe: str, rate: float) -> RateResult:
        """Learn the person at ``rate`` times the recipe's own, draw the prompts, judge."""
        from .train import Bar

        options = self.options
        config = check_config(recipe, rate, self._side, options.seed, options.train_steps)
        bar = Bar(f"{recipe} × {rate:g}", config.resolved().steps, 0)

        def make():
            from idea_engine.applying.diffusers import applied
            from idea_engine.training.loop import train

            try:
                identity, report = train(self.backend, self._enhanced, self._photos, config, masks=self._masks, on_step=bar)
            finally:
                bar.close()
            with applied(self._pipe, [self._drawing.acting(identity)]):
                return report, [self._draw(prompt.replace(PLACEHOLDER, TRIGGER), seed) for prompt, seed in self.check.seeded()]

        return self.check.try_rate(recipe, rate, make)

    def _draw(self, text: str, seed: int) -> Tensor:
        import numpy as np

        drawn = self._drawing.draw(self._pipe, text, self.options.seed + seed)
        return torch.from_numpy(np.asarray(drawn.convert("RGB"), dtype=np.float32) / 255)


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
