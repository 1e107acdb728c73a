"""``idea-engine evaluate``: how alike the pictures of a person are, by a judge that took no part in the training."""
from __future__ import annotations

import argparse
import glob
import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Sequence

import torch
from torch import Tensor

from idea_engine.errors import EvaluationError
from idea_engine.files.fingerprint import file_hash
from idea_engine.files.foreign_text import parsed_json, shown
from idea_engine.files.pictures import read_photo
from idea_engine.identity.identity import Identity
from idea_engine.judging.likeness import COPYING_WARNING, copy_paste, copying, csv_text, likeness_rows, score_likeness
from idea_engine.prompts.evaluation import evaluation_prompts
from idea_engine.prompts.trigger import PLACEHOLDER, scene_of
from idea_engine.sheets.contact import contact_sheet

from .demo import WorldJudge
from .judging import Judge, PackJudge
from .pictures import photo_files

NAME = "evaluate"
SUMMARY = "Draw each person in many prompts, and score likeness, copying and prompt; writes report.html with the pictures in it."
EPILOG = """\
examples:
  idea-engine evaluate --model demo --identity anna.safetensors --trained-on example_workflows/anna.png --held-out demo -o report
  idea-engine evaluate --model models/sd15 --identity identities --trained-on people --held-out more_photos --judge models/antelopev2 -o report

With several identities --trained-on and --held-out are folders with one subfolder per person, named as the identity file. The judge must be another
recognizer than the one the identities were made with, and the held-out photographs others than the training ones. An interrupted evaluation
goes on where it stopped. Files: report.html, scores.csv, summary.json, contact_sheet.png, pictures/.
"""
_WORLD_STRANGERS = 12
_WORLD_HELD_OUT = 6


def arguments(parser: argparse.ArgumentParser) -> None:
    from .drawing import drawing_arguments
    from .models import model_arguments

    parser.add_argument("--identity", nargs="+", required=True, metavar="FILE", help="identity files, or a folder of them")
    parser.add_argument("--held-out", nargs="+", default=[], metavar="PHOTO", help=(
        "photographs of the person that were not trained on, or a folder; 'demo' for Anna's drawn ones"
    ))
    parser.add_argument("--trained-on", nargs="+", default=[], metavar="PHOTO", help="the photographs that were trained on: to notice copies of them")
    parser.add_argument("--strangers", metavar="DIR", help=(
        "photographs of other people: where calibrated likeness is 0 (default: the other people, if there are several)"
    ))
    parser.add_argument("--judge", metavar="DIR", help="a face pack with another recognizer than the one that was trained with; the demo has its own")
    parser.add_argument("--same-recognizer", action="store_true", help="judge with the recognizer that was trained with nevertheless; the report says so")
    parser.add_argument("--clip", metavar="DIR", help="a local CLIP folder in transformers' layout, to score prompts")
    parser.add_argument("--prompts", metavar="FILE", help=f"one prompt per line with {PLACEHOLDER} for the person (default: a shipped list)")
    parser.add_argument("--count", type=int, default=4, metavar="N", help="pictures of each prompt and person (default: 4)")
    parser.add_argument("--seed", type=int, default=0, help="of the first picture of each person (default: 0)")
    parser.add_argument("-o", "--output", default="evaluation", metavar="DIR", help="where everything goes (default: %(default)s)")
    parser.add_argument("--provider", default="auto", help=argparse.SUPPRESS)
    parser.add_argument("--detection-size", type=int, default=0, help=argparse.SUPPRESS)
    drawing_arguments(parser)
    model_arguments(parser)


@dataclass(frozen=True)
class Subject:
    """One person to be judged; embeddings are rows (…, d) of the judge.

    Attributes:
        references: (R, d) of the photographs that pictures are compared with, which are ``photos``.
        training: (T, d) of the training photographs, or None.
        strangers: (S, d) of other people, or None.
    """

    name: str
    identity: Identity
    photos: tuple[Tensor, ...]
    references: Tensor
    training: Tensor | None
    strangers: Tensor | None = None


def run(options: argparse.Namespace) -> int:
    from .drawing import Drawing
    from .judging import PromptJudge
    from .models import load_model

    if options.count < 1:
        raise EvaluationError(f"--count is {options.count}, expected at least 1.")
    demo = options.model == "demo"
    judge, notes = open_judge(options, demo), []
    subjects = _beside_strangers(_subjects(options, judge, notes), options, judge, notes)
    critic = PromptJudge(options.clip) if options.clip else None
    prompts = _prompts(options.prompts, demo)
    ledger = Ledger(Path(options.output), _settings(options, judge, subjects, prompts))
    model = load_model(options)
    drawing = Drawing.of(options, model)
    _draw_and_score(options, model.pipe, drawing, subjects, prompts, judge, critic, ledger)
    facts = {"model": options.model, "judge": judge.recognizer, "pictures": f"{options.count} for each of {len(prompts)} prompts and {len(subjects)} people",
             "sampling": f"{drawing.steps} steps, guidance {drawing.guidance:g}, {drawing.width} × {drawing.height}, "
                         f"strength {drawing.strength:g} from {drawing.start_at:g} to {drawing.end_at:g} of it"}
    summary = [_summary(subject, ledger.rows) for subject in subjects]
    ledger.finish(facts, notes, summary, subjects)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    for row in summary:
        print(", ".join(f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items() if value is not None))
    print(ledger.folder / "report.html")
    return 0


def _draw_and_score(options, pipe, drawing, subjects, prompts, judge, critic, ledger: "Ledger") -> None:
    """Every picture that is not there yet is drawn, and every one that has no score yet is scored; each is written as it is made."""
    from tqdm import tqdm

    from idea_engine.applying.diffusers import applied

    from .pictures import write_picture

    pipe.set_progress_bar_config(disable=True)
    bar = tqdm(total=len(subjects) * len(prompts) * options.count, unit="picture", leave=False)
    for subject in subjects:
        with applied(pipe, [drawing.acting(subject.identity)]):
            for place, prompt in enumerate(prompts):
                for number in range(options.count):
                    bar.set_description(subject.name, refresh=False)
                    name = f"pictures/{subject.name}/{place + 1:02d}-{number + 1:02d}.png"
                    bar.update()
                    if ledger.holds(name):
                        continue
                    seed = options.seed + 1000 * place + number
                    text = prompt.replace(PLACEHOLDER, subject.identity.trigger)
                    if not (ledger.folder / name).is_file():
                        write_picture(drawing.draw(pipe, text, seed), ledger.folder / name, {"prompt": text, "seed": str(seed)})
                    photo = read_photo(ledger.folder / name)
                    row = {"identity": subject.name, "prompt": text, "number": number + 1, "seed": seed, **_score(subject, judge.measure(photo), name)}
                    scene = scene_of(prompt)
                    row["prompt_score"] = None if critic is None or not scene else critic.score(photo, scene)
                    ledger.add(row)
    bar.close()


def _score(subject: Subject, vector: Tensor | None, name: str) -> dict[str, object]:
    """The scores of one picture."""
    found = torch.tensor([vector is not None])
    generated = torch.zeros(1, subject.references.shape[1]) if vector is None else vector[None]
    (row,) = likeness_rows(score_likeness(generated, found, subject.references, subject.strangers), [name])
    if subject.training is None or vector is None:
        return {**row, "copy_paste": None}
    # What may have been copied is what was trained on; the held-out photographs say how alike others are.
    known = (generated, found, subject.training, subject.references)
    return {**row, "copying": round(float(copying(*known)), 4), "copy_paste": round(float(copy_paste(*known)), 4)}


def _summary(subject: Subject, rows: Sequence[dict]) -> dict[str, object]:
    """Means over one person's pictures. ``likeness`` and ``calibrated`` count a missing face as 0."""
    own = [row for row in rows if row["identity"] == subject.name]

    def mean(name: str, of: Sequence[dict]) -> float | None:
        values = [row[name] for row in of if row[name] is not None]
        return sum(values) / len(values) if values else None

    scale = score_likeness(subject.references, torch.ones(len(subject.references), dtype=torch.bool), subject.references, subject.strangers)
    seen = [row for row in own if row["face_found"]]
    return {
        "identity": subject.name, "calibrated": mean("calibrated", own), "likeness": mean("likeness", own), "raw_likeness": mean("likeness", seen),
        "detection_rate": len(seen) / len(own), "ceiling": scale.ceiling, "floor": None if subject.strangers is None else scale.floor,
        "copy_paste": mean("copy_paste", own), "copies": sum((row["copying"] or 0) >= COPYING_WARNING for row in own),
        "prompt_score": mean("prompt_score", own), "pictures": len(own),
    }


class Ledger:
    """What has been drawn and scored so far, on disk; a killed evaluation loses at most one picture."""

    def __init__(self, folder: Path, settings: dict[str, object]):
        """Raises: EvaluationError: the folder holds another evaluation."""
        from idea_engine.files.atomic_write import atomic_write

        self.folder, self.rows, self._scored = folder, [], set()
        known = folder / "settings.json"
        if known.is_file():
            try:
                before = parsed_json(known.read_text(encoding="utf-8"))
            except ValueError as error:
                raise EvaluationError(f"{known} is damaged ({shown(error)}). Give another folder with -o.") from error
            if not isinstance(before, dict):
                raise EvaluationError(f"{known} is damaged: a table was expected. Give another folder with -o.")
            if before != settings:
                differs = sorted(name for name in {*before, *settings} if before.get(name) != settings.get(name))
                raise EvaluationError(f"{folder} holds an evaluation with another {shown(', '.join(differs))}. Give another folder with -o, or the same settings to go on.")
        elif folder.exists() and any(folder.iterdir()):
            raise EvaluationError(f"The folder {folder} is not empty and holds no evaluation. Give another folder with -o.")
        atomic_write(known, json.dumps(settings, indent=1).encode())
        self._file = folder / "scores.jsonl"
        if self._file.is_file():
            for line in self._file.read_text(encoding="utf-8").splitlines():
                try:
                    row = parsed_json(line)
                except ValueError:  # the process was killed while it wrote this line
                    continue
                if isinstance(row, dict) and isinstance(row.get("picture"), str) and self._is_there(row["picture"]) and not self.holds(row["picture"]):
                    self.rows.append(row)
                    self._scored.add(row["picture"])
            atomic_write(self._file, "".join(json.dumps(row) + "\n" for row in self.rows).encode())

    def _is_there(self, picture: str) -> bool:
        """Whether a picture of this evaluation lies where a row says, inside the folder."""
        place = Path(picture)
        return not place.is_absolute() and ".." not in place.parts and (self.folder / place).is_file()

    def holds(self, picture: str) -> bool:
        """Whether a picture is there and scored."""
        return picture in self._scored

    def add(self, row: dict[str, object]) -> None:
        """Write one score down at once."""
        self.rows.append(row)
        self._scored.add(row["picture"])
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def finish(self, facts, notes, summary, subjects: Sequence[Subject]) -> None:
        """The report, the tables and the contact sheet."""
        from idea_engine.files.atomic_write import atomic_write

        from .pictures import write_picture
        from .report import html_report

        rows = sorted(self.rows, key=lambda row: row["picture"])
        references = {subject.name: subject.photos for subject in subjects}
        atomic_write(self.folder / "scores.csv", csv_text(rows).encode())
        atomic_write(self.folder / "summary.json", json.dumps({"facts": facts, "notes": notes, "scores": summary}, indent=1).encode())
        pictures, captions = [], []
        for name, photos in references.items():
            first = [row for row in rows if row["identity"] == name and row["number"] == 1]
            pictures.append([photos[0], *(read_photo(self.folder / row["picture"]) for row in first)])
            captions.append([name, *(f"{row['likeness']:.2f}" for row in first)])
        write_picture(contact_sheet(pictures, captions), self.folder / "contact_sheet.png")
        atomic_write(self.folder / "report.html", html_report("Likeness of identities", facts, notes, summary, references, rows, self.folder).encode())


def _subjects(options, judge, notes: list[str]) -> list[Subject]:
    """Everybody to be judged, with the photographs to compare with; ``notes`` gets what the reader must know."""
    from idea_engine.identity.foreign_files import read_identity

    files = [file for path in map(Path, options.identity) for file in (sorted(path.glob("*.safetensors")) if path.is_dir() else [path])]
    if not files:
        raise EvaluationError(f"There is no identity file in {', '.join(options.identity)}.")
    if len({file.stem for file in files}) < len(files):
        raise EvaluationError("Two identity files have the same name; rename one, for the report goes by names.")
    made = []
    for file in files:
        identity = read_identity(file)
        if identity.metadata.recognizer == judge.recognizer:
            if not options.same_recognizer:
                raise EvaluationError(
                    f"The judge {judge.recognizer} is the recognizer that {file.name} was made with, and a training can please its own recognizer. Give "
                    "another face pack with --judge, or accept flattered scores with --same-recognizer."
                )
            notes.append(f"{file.stem} is judged by the recognizer it was made with: its likeness is flattered.")
        made.append(_subject(file.stem, identity, options, judge, notes, alone=len(files) == 1))
    return made


def _subject(name: str, identity: Identity, options, judge, notes: list[str], alone: bool) -> Subject:
    training = _photos(options.trained_on, name, alone)
    held_out = _held_out(options, name, alone)
    same = held_out.keys() & training.keys()
    if same:
        notes.append(f"{name}: {len(same)} of the held-out photographs were trained on and are left out.")
    references = [photo for digest, photo in held_out.items() if digest not in same]
    if not references and training:
        notes.append(f"{name}: there is no photograph that was held out of the training, so the pictures are compared with the training photographs: flattered.")
        references = list(training.values())
    measured = [(photo, vector) for photo in references if (vector := judge.measure(photo)) is not None]
    if not measured:
        raise EvaluationError(f"There is no photograph of {name} with a face to compare with. Give some that were not trained on with --held-out.")
    if len(measured) < 2:
        notes.append(f"{name}: one photograph to compare with, so likeness cannot be calibrated; give two or more with --held-out.")
    vectors = [vector for photo in training.values() if (vector := judge.measure(photo)) is not None]
    if not vectors:
        notes.append(f"{name}: the training photographs were not given (--trained-on), so only copies of those compared with can be seen.")
    return Subject(name, identity, tuple(photo for photo, _ in measured), torch.stack([vector for _, vector in measured]), torch.stack(vectors) if vectors else None)


def _held_out(options, name: str, alone: bool) -> dict[str, Tensor]:
    if options.held_out != ["demo"]:
        return _photos(options.held_out, name, alone)
    if options.model != "demo":
        raise EvaluationError("--held-out demo are drawn photographs of the Portrait World's Anna, for --model demo only. Give photographs of the person.")
    from portrait_world.drawing import anna

    from .demo import world_photographs

    return {str(number): photo for number, photo in enumerate(world_photographs(anna.SPLIT, anna.INDEX, _WORLD_HELD_OUT))}


def _photos(paths: Sequence[str], name: str, alone: bool) -> dict[str, Tensor]:
    """Digest of the file → photograph; of several people each has a subfolder, or one picture, of their own name."""
    own = []
    for path in map(Path, paths):
        inside = [path / name] if (path / name).is_dir() else sorted(path.glob(f"{glob.escape(name)}.*")) if path.is_dir() and not alone else [path] if alone else []
        own += inside
    if paths and not own:
        raise EvaluationError(f"There are no photographs of {name} in {', '.join(paths)}; with several identities expected a subfolder {name} there.")
    return {file_hash(file): read_photo(file) for file in photo_files(own)}


def _beside_strangers(subjects: Sequence[Subject], options, judge, notes: list[str]) -> list[Subject]:
    """The subjects with other people's embeddings: those that were given, else the Portrait World's, else one another's."""
    from .demo import world_photographs

    if options.strangers:
        photos = [read_photo(file) for file in photo_files([options.strangers])]
    elif options.model == "demo":
        from portrait_world.drawing import anna

        photos = [world_photographs(anna.SPLIT, index, 1)[0] for index in range(_WORLD_STRANGERS + 1) if index != anna.INDEX]
    elif len(subjects) > 1:
        return [replace(one, strangers=torch.cat([other.references for other in subjects if other is not one])) for one in subjects]
    else:
        photos = []
    vectors = [vector for photo in photos if (vector := judge.measure(photo)) is not None]
    if not vectors:
        notes.append("There are no photographs of strangers (--strangers), so a stranger is taken to have the cosine 0.")
    return [replace(one, strangers=torch.stack(vectors) if vectors else None) for one in subjects]


def _prompts(file: str | None, demo: bool) -> list[str]:
    from .demo import world_prompts

    return world_prompts() if file is None and demo else evaluation_prompts(file)


def _settings(options, judge, subjects: Sequence[Subject], prompts: Sequence[str]) -> dict[str, object]:
    """Everything the pictures and scores depend on, so that only the same evaluation goes on."""
    from idea_engine.files.fingerprint import content_key
    from idea_engine.identity.operations import content_hash

    names = ("model", "count", "seed", "steps", "guidance", "size", "negative", "strength", "start_at", "end_at", "precision", "clip")
    people = {subject.name: content_key(content_hash(subject.identity), subject.references, subject.training, subject.strangers) for subject in subjects}
    files = {"model files": _files(None if options.model == "demo" else options.model), "clip files": _files(options.clip)}
    return {**{name: getattr(options, name) for name in names}, **files, "judge": judge.recognizer, "prompts": list(prompts), "people": people}


def _files(path: str | None) -> list[list[object]]:
    """Name, size and time of a model's files. They stand for the content, which is gigabytes; another model may come to lie under the same name."""
    root = Path(path or "")
    files = sorted(file for file in root.rglob("*") if file.is_file()) if path and root.is_dir() else [root] if path and root.is_file() else []
    return [[file.relative_to(root).as_posix(), (found := file.stat()).st_size, found.st_mtime_ns] for file in files]


def open_judge(options: argparse.Namespace, demo: bool) -> Judge:
    """The judge that ``--judge`` names; the Portrait World has its own.

    Raises:
        FaceModelError: there is none.
    """
    from .faces import open_pack

    if options.judge is None and demo:
        return WorldJudge(open_pack(None, options, demo=True))
    return PackJudge(open_pack(options.judge, options, option="--judge"))
