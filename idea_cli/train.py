"""``idea-engine train``: learn one person, or a folder of people."""
from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Sequence

from idea_engine.errors import IdeaError, IdentityFileError, TrainingError
from idea_engine.files.foreign_text import shown
from idea_engine.methods import RECIPES
from idea_engine.training.checkpoint import Checkpoint

from .people import PersonToLearn, Team, differences, people_in

NAME = "train"
SUMMARY = "Learn a person from one or a few photographs, or everybody in a folder; an interrupted training goes on where it stopped."
EPILOG = """\
examples:
  idea-engine train --model demo --photos example_workflows/anna.png -o anna.safetensors
  idea-engine train --model models/sd15 --photos anna1.jpg anna2.jpg --face-pack models/buffalo_l --trigger "<anna>" -o anna.safetensors
  idea-engine train --model models/sd15 --people people --face-pack models/buffalo_l -o identities
  idea-engine train --model demo --photos example_workflows/anna.png --preview-every 10 -o anna.safetensors
  accelerate launch --multi_gpu -m idea_engine train --model models/sd15 --people people --face-pack models/buffalo_l -o identities

In a folder of people each subfolder of photographs is a person, and so is each photograph beside them. Who is finished is skipped; who was
learned from something else, or with another recipe, is left as it is and said so. Accelerate's launcher spreads the people over graphics cards,
one process each; several terminals may share a folder too.

recipes:
  balanced  40 steps, our own: learns the face, leaves the rest of the prompt alone
  fast      the same in 20 steps; best: in 80
  paper     320 steps, everything the paper trains; changes other prompts too
  released  320 steps, what the authors' script really does
  sefi      320 steps, SeFi-IDE: five stages of the sampling, words of its own for each
"""
_ATTENTION = {"off": "off", "face-word": "face_word", "face-mask": "mask"}
_INPUTS = "inputs"  # in the file's description: names everything that was learned from
_SIDE_LIMIT = 2048


def arguments(parser: argparse.ArgumentParser) -> None:
    from .faces import face_arguments
    from .models import model_arguments

    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--photos", nargs="+", metavar="PHOTO", help="photographs of one person, or a folder of them")
    who.add_argument("--people", metavar="DIR", help="a folder of people")
    parser.add_argument("-o", "--output", metavar="PATH", help="the identity file, or with --people a folder (default: the trigger's name, or 'identities')")
    parser.add_argument("--trigger", default="<anna>", metavar="WORD", help="the word for the person in prompts (default: %(default)s; with --people from the names)")
    parser.add_argument("--consent", default="", metavar="TEXT", help="a note kept in the file: who agreed to what")
    parser.add_argument("--store-face", action="store_true", help="also store the face embedding in the file; it is biometric data")
    group = parser.add_argument_group("the training")
    group.add_argument("--recipe", choices=tuple(RECIPES), default="balanced", help="what is trained, see below (default: %(default)s)")
    group.add_argument("--steps", type=int, default=0, metavar="N", help="default: the recipe's own number")
    group.add_argument("--batch", type=int, default=0, metavar="N", help="pictures per step; default: the recipe's own")
    group.add_argument("--lr", type=float, default=0.0, metavar="RATE", help="learning rate per picture of the batch; default: the recipe's own")
    group.add_argument("--resolution", type=int, default=0, metavar="PIXELS", help="side of the training pictures, a multiple of 8; default: the model's own")
    group.add_argument("--seed", type=int, default=0, help="the same seed and inputs give the same identity (default: 0)")
    group.add_argument(
        "--preview-every", type=int, default=0, metavar="N", help="write a picture of the person after every N steps and the last, always with the same noise"
    )
    group.add_argument("--preview-dir", metavar="DIR", help="where the previews go, as NAME-STEP.png (default: a folder 'previews' beside the identity)")
    group.add_argument("--stages", type=int, default=0, metavar="N", help="stages of the sampling with words of their own (SeFi-IDE); default: the recipe's own")
    group.add_argument("--attention", choices=tuple(_ATTENTION), help=(
        "where the person's word should look: where the model looks for the word face, or at the face that was found; default: the recipe's own"
    ))
    group.add_argument("--caption", action="append", default=[], metavar="TEXT", help=(
        "what else the photographs show, such as 'smiling, in a forest': it is not learned as a part of the person. "
        "Once for all photographs, or repeated, one for each, in their order (those of a folder by name)"
    ))
    group.add_argument("--names", metavar="FILE", help="names that the textual anchor is averaged from, one per line; default: the shipped list")
    group.add_argument("--bases", metavar="DIR", help=(
        "the folder with the advice of 'idea-engine check', such as ComfyUI's models/idea/bases: what it says of this model's rates is followed"
    ))
    group.add_argument("--save-every", type=float, default=60.0, metavar="SECONDS", help="how much a killed training may lose (default: %(default)g)")
    model_arguments(parser)
    face_arguments(parser)


def run(options: argparse.Namespace) -> int:
    for name, most in (("steps", 100_000), ("batch", 4096), ("resolution", _SIDE_LIMIT), ("lr", 1.0), ("stages", 20)):
        if not 0 <= getattr(options, name) <= most:
            raise TrainingError(f"--{name} is {getattr(options, name)}, expected 0 (the recipe's own) to {most}.")
    if options.preview_every < 0:
        raise TrainingError(f"--preview-every is {options.preview_every}, expected a number of steps, or 0 for no previews.")
    if options.preview_dir and not options.preview_every:
        raise TrainingError("--preview-dir says where previews go, but none are asked for. Say how often with --preview-every, such as --preview-every 10.")
    if options.save_every < 0:
        raise TrainingError(f"--save-every is {options.save_every:g} seconds, expected 0 or more.")
    if options.photos:
        return _alone(options)
    people = people_in(options.people, Path(options.output or "identities"))
    team = Team(options.device)
    studio = Studio(options, team.device)
    finished, waiting, failed = [], [], 0
    for person in people:
        try:
            (finished if studio.finished(person) else waiting).append(person)
        except (IdeaError, OSError) as error:  # the others are still worth learning
            failed += 1
            if team.number == 0:
                _complain(person, error)
    if team.number == 0 and finished:
        print(f"finished already, skipped: {shown(', '.join(person.name for person in finished), 2000)}")
    mine = team.share(waiting)
    for number, person in enumerate(mine, 1):
        try:
            if not studio.learn(person, f"{person.name} ({number} of {len(mine)})", position=team.number):
                print(f"{shown(person.name)}: another process is at it, left to it", flush=True)
        except (IdeaError, OSError) as error:
            failed += 1
            _complain(person, error)
    team.leave()
    return 2 if failed else 0


def _complain(person: PersonToLearn, error: IdeaError | OSError) -> None:
    reason = f"{error.filename or 'A file'} cannot be used: {error.strerror or error}." if isinstance(error, OSError) else error
    print(f"idea-engine: {shown(person.name)} was not learned: {reason}", file=sys.stderr)


def _alone(options: argparse.Namespace) -> int:
    from .pictures import photo_files

    name = options.trigger.strip("<>") or "identity"
    output = Path(options.output or f"{name}.safetensors")
    if output.suffix != ".safetensors":
        output = output.with_name(output.name + ".safetensors")
    if output.exists():
        raise TrainingError(f"{output} is there already. Give another file with -o, or move it away; nothing is overwritten.")
    person = PersonToLearn(name, options.trigger, tuple(photo_files(options.photos)), output)
    if not Studio(options).learn(person, name):
        raise TrainingError(f"Another process is learning {output} right now. Wait for it, or give another file with -o.")
    return 0


class Studio:
    """The model, the face pack and the anchor, loaded once for everybody who is learned."""

    def __init__(self, options: argparse.Namespace, device=None):
        from idea_engine.backends.diffusers import DiffusersBackend
        from idea_engine.files.fingerprint import fingerprint
        from idea_engine.identity.anchor import compute_anchor, parse_names
        from idea_engine.judging.base_advice import advised_rate, base_hash

        from .faces import open_pack
        from .models import load_model

        names = parse_names(Path(options.names).read_text(encoding="utf-8")) if options.names else None
        self.options = options
        self.encoder = open_pack(options.face_pack, options, demo=options.model == "demo")
        model = load_model(options, device)
        self.backend = DiffusersBackend(model.pipe)
        self.resolution = options.resolution or model.side
        self.names = tuple(names or model.names)
        self.anchor = compute_anchor(self.backend, self.names)
        self.model_hash = fingerprint(self.backend.unet.state_dict().items())
        self.base_rate = 1.0
        if options.bases:
            self.base_rate = advised_rate([Path(options.bases)], base_hash(self.backend.unet.state_dict().items()), options.recipe)

    def finished(self, person: PersonToLearn) -> bool:
        """Whether the person's identity is there, learned from the same with the same settings.

        Raises:
            TrainingError: it is there and was learned otherwise.
        """
        identity = person.kept()
        if identity is None:
            return False
        config = self._config(person, self.options.caption)
        recipe = config.resolved()
        wanted = {name: getattr(config, name) for name in ("recipe", "resolution", "seed", "stages", "attention")}
        other = differences(identity, {**wanted, **{name: getattr(recipe, name) for name in ("steps", "batch", "lr")}})
        inputs = identity.metadata.config.get(_INPUTS)
        if identity.metadata.base_hash not in ("", self.backend.text_hash) or (not other and inputs not in (None, self._inputs(person))):
            other.append("another model, other photographs, captions or names")
        if other:
            raise TrainingError(
                f"{person.output} is there already, but was learned otherwise: {', '.join(other)}. Nothing is overwritten: give another folder with -o, or move it away."
            )
        return True

    def learn(self, person: PersonToLearn, title: str, position: int = 0) -> bool:
        """Train one person with a progress bar and write the identity, unless another process has done so, or is at it: then False.

        Raises:
            IdeaError: no face, an unusable photograph, a training that fails …
        """
        with person.held() as mine:
            if not mine or person.kept() is not None:
                return False
            self._learn(person, title, position)
            person.clear()
            return True

    def _learn(self, person: PersonToLearn, title: str, position: int) -> None:
        from idea_engine.faces.embed import embed_faces
        from idea_engine.files.file_size import shown_size
        from idea_engine.files.pictures import read_photo
        from idea_engine.identity.enhanced import EnhancedIdentity
        from idea_engine.identity.file import save_identity
        from idea_engine.training.loop import train

        options = self.options
        photos, captions = [read_photo(file) for file in person.photos], options.caption
        if len(captions) not in (0, 1, len(photos)):
            raise TrainingError(f"There are {len(captions)} captions for {len(photos)} photographs, expected one --caption for all, or one for each.")
        face = embed_faces(self.encoder, photos, options.choose, options.index, "skip")
        if len(face) < len(photos):
            left_out = [file.name for number, file in enumerate(person.photos) if number not in face.image_index]
            print(f"{shown(person.name)}: no face in {shown(', '.join(left_out))}, left out", file=sys.stderr)
            photos = [photos[number] for number in face.image_index]
            captions = [captions[number] for number in face.image_index] if len(captions) > 1 else captions
        enhanced = EnhancedIdentity(
            self.backend.family, face.mean(), self.anchor, options.seed, recognizer=face.recognizer, licence=face.licence, masks=face.masks
        )
        config = self._config(person, captions)
        checkpoint = Checkpoint(person.partial(self._key(enhanced, photos, config)), options.save_every, person.trigger)
        steps = config.resolved().steps
        bar = Bar(title, steps, position)

        def keep(identity) -> bool:
            described = {**identity.metadata.config, _INPUTS: self._inputs(person)}
            described = replace(identity, metadata=replace(identity.metadata, consent=options.consent, config=described))
            save_identity(described, person.output, store_face=options.store_face)
            return True

        try:
            previews = self._previews(person, steps)
            _, report = train(
                self.backend, enhanced, photos, config, masks=face.masks, on_step=bar, checkpoint=checkpoint, previews=previews, keep=keep
            )
        except IdentityFileError as error:
            raise IdentityFileError(f"{error} {_what_is_kept(checkpoint, steps)}") from error
        finally:
            bar.close()
        path = person.output
        remarks = "".join(f"; {remark}" for remark in config.remarks())
        went_on = f", resumed at step {report.resumed_at}" if report.resumed_at else ""
        print(f"{shown(path, 1000)}: {person.trigger}, {len(report.losses)} steps{went_on}, {report.seconds:.0f} s, {shown_size(path.stat().st_size)}{remarks}", flush=True)

    def _previews(self, person: PersonToLearn, steps: int):
        """Pictures on the way, written as NAME-STEP.png; None where none are asked for. They change nothing that is learned."""
        from idea_engine.training.previews import Preview, Previews

        from .pictures import write_picture

        every, folder = self.options.preview_every, Path(self.options.preview_dir or person.output.parent / "previews")
        if not every:
            return None
        digits = len(str(steps))

        def write(preview: Preview) -> None:
            path = folder / f"{person.output.stem}-{preview.step:0{digits}}.png"
            try:
                write_picture(preview.pictures[0], path, {"trigger": person.trigger, "step": str(preview.step)})
            except OSError as error:  # a full disk; the training is worth more
                print(f"{path} was not written ({error}); the training goes on", file=sys.stderr)

        return Previews(every, show=write)

    def _config(self, person: PersonToLearn, captions: Sequence[str]):
        from idea_engine.training.config import TrainConfig

        options = self.options
        return TrainConfig(
            recipe=options.recipe, trigger=person.trigger, steps=options.steps, batch=options.batch, lr=options.lr, resolution=self.resolution,
            seed=options.seed, captions=tuple(captions), stages=options.stages, attention=_ATTENTION.get(options.attention, ""),
            base_rate=self.base_rate,
        )

    def _inputs(self, person: PersonToLearn) -> str:
        """Names what a person is learned from. No photograph can be told from it, nor that it was among them without having them all."""
        from idea_engine.files.fingerprint import content_key, file_hash

        files = [file_hash(file) for file in person.photos]
        options = self.options
        return content_key("inputs 1", self.model_hash, self.backend.text_hash, self.names, self.encoder.recognizer, options.choose, options.index, options.caption, files)

    def _key(self, enhanced, photos, config) -> str:
        """Names an unfinished training by everything its result depends on, so that only the same one goes on."""
        from idea_engine.files.fingerprint import content_key

        anchors = [enhanced.anchor.rows[name] for name in self.backend.family.encoders]
        models = (self.model_hash, self.backend.text_hash)
        recipe = config.resolved()
        face = (enhanced.seed, enhanced.face) if recipe.reads_face else ()
        return content_key("command line 4", replace(config, trigger=""), recipe, *models, *face, *anchors, *photos, *enhanced.masks)[:12]


def _what_is_kept(checkpoint: Checkpoint, steps: int) -> str:
    """After a finished training that could not be written: what the same command will find."""
    if checkpoint.kept is None:
        return "There was no room to keep the training either, so it has to be done again."
    if checkpoint.kept == steps:
        return "The whole training is kept: the same command has only to write the file."
    return f"The training is kept up to step {checkpoint.kept} of {steps}: the same command goes on from there."


class Bar:
    """A progress bar with the running mean of the loss, and the time that is left."""

    def __init__(self, title: str, steps: int, position: int):
        from tqdm import tqdm

        self._bar = tqdm(total=steps, desc=title, position=position, unit="step", leave=False)

    def __call__(self, event) -> None:
        """After each step; a resumed training starts with the steps that were done before."""
        from idea_engine.sheets.chart import running_mean

        if self._bar.n == 0 and event.step > 1:
            self._bar.initial = self._bar.n = event.step - 1
        self._bar.set_postfix_str(f"loss {running_mean(event.losses)[-1]:.4f}", refresh=False)
        self._bar.update()

    def close(self) -> None:
        self._bar.close()
