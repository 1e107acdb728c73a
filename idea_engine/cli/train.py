"""``idea-engine train``: learn one person, or a folder of people."""
from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from ..errors import IdeaError, TrainingError
from ..methods.id_ea import RECIPES
from .people import PersonToLearn, Team, people_in

NAME = "train"
SUMMARY = "Learn a person from one or a few photographs, or everybody in a folder; an interrupted training goes on where it stopped."
EPILOG = """\
examples:
  idea-engine train --model demo --photos example_workflows/anna.png -o anna.safetensors
  idea-engine train --model models/sd15 --photos anna1.jpg anna2.jpg --face-pack models/buffalo_l --trigger "<anna>" -o anna.safetensors
  idea-engine train --model models/sd15 --people people --face-pack models/buffalo_l -o identities
  idea-engine train --model demo --photos example_workflows/anna.png --preview-every 10 -o anna.safetensors
  accelerate launch --multi_gpu -m idea_engine train --model models/sd15 --people people --face-pack models/buffalo_l -o identities

In a folder of people each subfolder of photographs is a person, and so is each photograph beside them. Who is finished is skipped. Accelerate's
launcher spreads the people over graphics cards, one process each.

recipes:
  balanced  40 steps, our own: learns the face, leaves the rest of the prompt alone
  fast      the same in 20 steps; best: in 80
  paper     320 steps, everything the paper trains; changes other prompts too
  released  320 steps, what the authors' script really does
  sefi      320 steps, SeFi-IDE: five stages of the sampling, words of its own for each
"""
_SAVE_EVERY = 10  # steps between two saves of an unfinished training
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
    group.add_argument("--names", metavar="FILE", help="names that the textual anchor is averaged from, one per line; default: the shipped list")
    model_arguments(parser)
    face_arguments(parser)


def run(options: argparse.Namespace) -> int:
    for name, most in (("steps", 100_000), ("batch", 4096), ("resolution", _SIDE_LIMIT), ("lr", 1.0)):
        if not 0 <= getattr(options, name) <= most:
            raise TrainingError(f"--{name} is {getattr(options, name)}, expected 0 (the recipe's own) to {most}.")
    if options.preview_every < 0:
        raise TrainingError(f"--preview-every is {options.preview_every}, expected a number of steps, or 0 for no previews.")
    if options.preview_dir and not options.preview_every:
        raise TrainingError("--preview-dir says where previews go, but none are asked for. Say how often with --preview-every, such as --preview-every 10.")
    if options.photos:
        return _alone(options)
    team = Team(options.device)
    people = people_in(options.people, Path(options.output or "identities"))
    finished = [person.name for person in people if person.finished]
    mine = team.share([person for person in people if person.name not in finished])
    if team.number == 0 and finished:
        print(f"finished already, skipped: {', '.join(finished)}")
    failed = 0
    if mine:
        studio = Studio(options, team.device)
        for number, person in enumerate(mine, 1):
            try:
                studio.learn(person, f"{person.name} ({number} of {len(mine)})", position=team.number)
            except IdeaError as error:  # the others are still worth learning
                failed += 1
                print(f"idea-engine: {person.name} was not learned: {error}", file=sys.stderr)
    team.leave()
    return 2 if failed else 0


def _alone(options: argparse.Namespace) -> int:
    from .pictures import photo_files

    name = options.trigger.strip("<>") or "identity"
    output = Path(options.output or f"{name}.safetensors")
    if output.suffix != ".safetensors":
        output = output.with_name(output.name + ".safetensors")
    if output.exists():
        raise TrainingError(f"{output} is there already. Give another file with -o, or move it away; nothing is overwritten.")
    Studio(options).learn(PersonToLearn(name, options.trigger, tuple(photo_files(options.photos)), output), name)
    return 0


class Studio:
    """The model, the face pack and the anchor, loaded once for everybody who is learned."""

    def __init__(self, options: argparse.Namespace, device=None):
        from ..anchors import compute_anchor, parse_names
        from ..backends.diffusers import DiffusersBackend
        from .faces import open_pack
        from .models import load_model

        names = parse_names(Path(options.names).read_text(encoding="utf-8")) if options.names else None
        self.options = options
        self.encoder = open_pack(options.face_pack, options, demo=options.model == "demo")
        model = load_model(options, device)
        self.backend = DiffusersBackend(model.pipe)
        self.resolution = options.resolution or model.side
        self.anchor = compute_anchor(self.backend, names or model.names)

    def learn(self, person: PersonToLearn, title: str, position: int = 0) -> None:
        """Train one person with a progress bar and write the identity.

        Raises:
            IdeaError: no face, an unusable photograph, a training that fails …
        """
        from ..checkpoint import Checkpoint
        from ..face import embed_faces
        from ..identity_file import save_identity
        from ..train import train
        from ..train_config import TrainConfig
        from ..types import EnhancedIdentity
        from .pictures import read_photo

        options = self.options
        photos = [read_photo(file) for file in person.photos]
        face = embed_faces(self.encoder, photos, options.choose, options.index, "skip")
        if len(face) < len(photos):
            left_out = [file.name for number, file in enumerate(person.photos) if number not in face.image_index]
            print(f"{person.name}: no face in {', '.join(left_out)}, left out", file=sys.stderr)
            photos = [photos[number] for number in face.image_index]
        enhanced = EnhancedIdentity(
            self.backend.family, face.mean(), self.anchor, options.seed, recognizer=face.recognizer, licence=face.licence, masks=face.masks
        )
        config = TrainConfig(
            recipe=options.recipe, trigger=person.trigger, steps=options.steps, batch=options.batch, lr=options.lr, resolution=self.resolution,
            seed=options.seed,
        )
        checkpoint = Checkpoint(person.output.with_name(f".{person.output.stem}-{self._key(enhanced, photos, config)}.partial"), every=_SAVE_EVERY)
        bar = Bar(title, config.resolved().steps, position)
        try:
            identity, report = train(
                self.backend, enhanced, photos, config, on_step=bar, checkpoint=checkpoint, previews=self._previews(person, config.resolved().steps)
            )
        finally:
            bar.close()
        identity = replace(identity, metadata=replace(identity.metadata, consent=options.consent))
        path = save_identity(identity, person.output, store_face=options.store_face)
        went_on = f", resumed at step {report.resumed_at}" if report.resumed_at else ""
        print(f"{path}: {person.trigger}, {len(report.losses)} steps{went_on}, {report.seconds:.0f} s, {path.stat().st_size / 1e6:.1f} MB", flush=True)

    def _previews(self, person: PersonToLearn, steps: int):
        """Pictures on the way, written as NAME-STEP.png; None where none are asked for. They change nothing that is learned."""
        from ..previews import Preview, Previews
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

    def _key(self, enhanced, photos, config) -> str:
        """Names an unfinished training by everything its result depends on, so that only the same one goes on."""
        from ..fingerprint import content_key, fingerprint

        anchors = [enhanced.anchor.rows[name] for name in self.backend.family.encoders]
        unet = fingerprint(self.backend.unet.state_dict().items())
        return content_key("command line 1", replace(config, trigger=""), config.resolved(), unet, self.backend.text_hash, enhanced.face, *anchors, *photos)[:12]


class Bar:
    """A progress bar with the running mean of the loss, and the time that is left."""

    def __init__(self, title: str, steps: int, position: int):
        from tqdm import tqdm

        self._bar = tqdm(total=steps, desc=title, position=position, unit="step", leave=False)

    def __call__(self, event) -> None:
        """After each step; a resumed training starts with the steps that were done before."""
        from ..chart import running_mean

        if self._bar.n == 0 and event.step > 1:
            self._bar.initial = self._bar.n = event.step - 1
        self._bar.set_postfix_str(f"loss {running_mean(event.losses)[-1]:.4f}", refresh=False)
        self._bar.update()

    def close(self) -> None:
        self._bar.close()
