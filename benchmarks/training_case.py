"""One measurement of benchmarks/training.py, in a process of its own: prints its answer as JSON.

`time` lets our step and the released one take turns on the same models; `ours`, `released` and `released-freed` run one of them and read the
peak of the memory. `released-freed` is the released step without retain_graph.
"""
from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests" / "support")]

import torch  # noqa: E402

from idea_engine.backends.diffusers import DiffusersBackend  # noqa: E402
from idea_engine.identity.anchor import compute_anchor  # noqa: E402
from idea_engine.identity.enhanced import EnhancedIdentity  # noqa: E402
from idea_engine.methods import build  # noqa: E402
from idea_engine.methods.id_ea import RELEASED  # noqa: E402
from idea_engine.training import loop as train  # noqa: E402
from idea_engine.training.pictures import prepare_masks, prepare_photos  # noqa: E402
from inside.clock import clock_of  # noqa: E402
from inside.memory import MEGABYTE, PeakMemory  # noqa: E402
from inside.models import face_mask  # noqa: E402
from true_models import SHAPES, pipeline  # noqa: E402

CASES = ("time", "ours", "released", "released-freed")
NAMES = ("brad pitt", "ann lee", "tom hanks", "emma stone", "bo")
TEMPLATES = ("a photo of a face of {tokens} person", "a close-up photo of {tokens} person", "{tokens}")  # short: the benchmark's tokenizer spells
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    add_options(parser)
    options = parser.parse_args()
    print(json.dumps(measure(options)))


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shape", choices=SHAPES, default="sd15", help="model (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="such as cuda (default: %(default)s)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of UNet and autoencoder (default: %(default)s)")
    parser.add_argument("--pixels", type=int, default=256, help="side of the picture (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=4, help="pictures a step (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="counted steps of each (default: %(default)s)")
    parser.add_argument("--recipe", default="fast", help="our recipe (default: %(default)s)")


class Bench:
    """The models, and both trainings on them."""

    def __init__(self, options):
        self.options, self.device = options, torch.device(options.device)
        if self.device.type == "cpu":
            torch.set_num_threads(1)
        self.backend = DiffusersBackend(pipeline(SHAPES[options.shape], self.device, DTYPES[options.dtype]))
        face = torch.nn.functional.normalize(torch.randn(512, generator=torch.Generator().manual_seed(7)), dim=0)
        self.enhanced = EnhancedIdentity(self.backend.family, face, compute_anchor(self.backend, NAMES), seed=0, recognizer="none", licence="none")
        photo = torch.rand(options.pixels, options.pixels, 3, generator=torch.Generator().manual_seed(0))
        self.pictures = prepare_photos([photo], options.pixels)
        self.masks = prepare_masks([face_mask(options.pixels)], [photo], options.pixels)
        self.clock = clock_of(self.device)
        self.latent = (4, options.pixels // 8, options.pixels // 8)

    def batch(self, step: int) -> train.Batch:
        return train.draw_batch(0, step, self.options.batch, 2, len(TEMPLATES), self.latent, self.backend.timesteps)

    @property
    def comparable(self) -> bool:
        """Whether the released script can train this model: it knows one text encoder."""
        return len(self.backend.encoders) == 1

    def ours(self) -> train._Run:
        config = train.TrainConfig(
            recipe=self.options.recipe, steps=10_000, batch=self.options.batch, resolution=self.options.pixels, templates=TEMPLATES
        )
        recipe = config.resolved()
        return train._Run(self.backend, self.enhanced, recipe, config, self.pictures, build, self.masks if recipe.reads_masks else None)

    def our_step(self, run: train._Run) -> float:
        loss = run._step()
        run.progress.step += 1
        return loss

    def released(self, keeps_graph: bool):
        from released_reference import Reference

        with torch.random.fork_rng():
            start = build(self.enhanced, RELEASED, self.backend.block_widths).to(self.device).state_dict()
        face = self.enhanced.face.to(self.device)
        return Reference(self.backend, face, NAMES, start, RELEASED.anchor_weight, self.options.batch, as_it_is=True, keeps_graph=keeps_graph)

    def released_step(self, reference, step: int) -> float:
        batch = self.batch(step)
        # As the script's data set does: the one picture, turned at random.
        images = torch.stack([self.pictures[0].flip(1) if pick else self.pictures[0] for pick in batch.pictures]).to(self.device)
        latents = reference.latents(images)
        prompts = [TEMPLATES[i].replace("{tokens}", "<v0><v1>") for i in batch.prompts]
        return reference.step(latents, batch.noise.to(self.device), batch.timesteps.to(self.device), prompts)


def measure(options) -> dict:
    bench = Bench(options)
    if options.case == "time":
        return _times(bench)
    losses = []
    with PeakMemory(bench.device) as memory:
        if options.case == "ours":
            run = bench.ours()
            with bench.backend.training():
                losses = [bench.our_step(run) for _ in range(2)]
        else:
            reference = bench.released(keeps_graph=options.case == "released")
            losses = [bench.released_step(reference, step) for step in range(2)]
    assert all(loss == loss for loss in losses), losses
    weights = sum(p.nbytes for model in (bench.backend.unet, bench.backend.vae, *bench.backend.encoders.values()) for p in model.parameters())
    return {"memory_mb": memory.over_start, "weights_mb": weights / MEGABYTE}


class _Parts:
    """Where a step's time goes: seconds of single calls."""

    def __init__(self, clock):
        self.clock = clock
        self.seconds: dict[str, list[float]] = {}

    def watch(self, owner: object, method: str, label: str) -> None:
        original = getattr(owner, method)
        self.seconds[label] = []

        def timed(*args, **kwargs):
            begun = self.clock()
            try:
                return original(*args, **kwargs)
            finally:
                self.seconds[label].append(self.clock() - begun)

        setattr(owner, method, timed)

    def medians(self, last: int) -> dict[str, float]:
        return {label: statistics.median(values[-last:]) for label, values in self.seconds.items() if values}


def _times(bench: Bench) -> dict:
    """Seconds of every counted step. The released training marks weights of the shared UNet, so it prepares first and they are reset for our turns."""
    started = time.perf_counter()
    run = bench.ours()
    reference = bench.released(keeps_graph=False) if bench.comparable else None  # for the time there is no difference, and two graphs need not fit
    marked = [p for p in bench.backend.unet.parameters() if p.requires_grad] if bench.comparable else []
    seconds: dict[str, list[float]] = {"ours": [], "released": []}
    parts = {"ours": _Parts(bench.clock), "released": _Parts(bench.clock)}
    for owner, method, label in ((bench.backend, "encode_text", "text"), (bench.backend, "predict", "unet"), (run.optimizer, "step", "optimizer")):
        parts["ours"].watch(owner, method, label)
    if reference is not None:
        for method, label in (("latents", "autoencoder"), ("encode", "text"), ("predict", "unet")):
            parts["released"].watch(reference, method, label)
        parts["released"].watch(reference.optimizer, "step", "optimizer")

    def ours() -> None:
        for parameter in marked:
            parameter.requires_grad_(False)
        with bench.backend.training():
            begun = bench.clock()
            bench.our_step(run)
            seconds["ours"].append(bench.clock() - begun)

    def released(step: int) -> None:
        for parameter in marked:
            parameter.requires_grad_(True)
        begun = bench.clock()
        bench.released_step(reference, step)
        seconds["released"].append(bench.clock() - begun)

    for number in range(bench.options.rounds + 1):
        turns = [ours, lambda: released(number)] if bench.comparable else [ours]
        for turn in turns if number % 2 else reversed(turns):  # nobody is always first
            turn()
    counted = {name: values[1:] for name, values in seconds.items() if values}
    return {"seconds": counted, "parts": {name: part.medians(bench.options.rounds) for name, part in parts.items()}, "wall_seconds": time.perf_counter() - started}


if __name__ == "__main__":
    main()
