"""``python -m portrait_world.gates``: is the world good enough to trust? Measured on validation people and on all names.

Prints one line per gate and writes ``gates.json`` and ``gates.png`` (rows named people; first column the real person) to
the cache folder. Nothing here ever looks at test people.
"""
from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .. import assets
from ..cache import cache_folder
from ..drawing.portrait import render
from ..networks import noise
from ..networks.autoencoder import SD_SCALE, to_pictures, to_tensor
from ..tokenizer import tokenize
from ..world import captions
from ..world.people import SPLITS, names, person
from ..world.portrayal import ATTRIBUTES, Shot, photograph, sample_shot
from .similarity import area_under_curve, judge_embeddings, read_attributes


@dataclass(frozen=True)
class Gate:
    """One requirement: what was measured and what it must reach."""

    name: str
    value: float
    least: float

    @property
    def passed(self) -> bool:
        return self.value >= self.least


def judge_gates(people: int = 150, photos: int = 6) -> list[Gate]:
    """The judge on photographs of validation people."""
    rng = np.random.default_rng(77)
    pictures = np.stack([render(person("validation", i), photograph(rng)) for i in range(people) for _ in range(photos)])
    vectors = judge_embeddings(pictures)
    cosines = (vectors @ vectors.T).numpy()
    owner = np.repeat(np.arange(people), photos)
    upper = np.triu_indices(len(owner), 1)
    same = (owner[:, None] == owner[None])[upper]
    scores = cosines[upper]
    threshold = np.quantile(scores[~same], 0.99)
    return [
        Gate("judge: AUC on photos of unseen people", area_under_curve(scores[same], scores[~same]), 0.99),
        Gate("judge: true accept at 1 % false accept", float((scores[same] > threshold).mean()), 0.85),
    ]


def attribute_gates(count: int = 800) -> list[Gate]:
    """The attribute judge on real renders of validation people, all styles; colour where there is colour."""
    rng = np.random.default_rng(78)
    shots = [sample_shot(rng) for _ in range(count)]
    pictures = np.stack([render(person("validation", k % SPLITS["validation"]), shot) for k, shot in enumerate(shots)])
    return _attribute_gates("real", pictures, shots, {field: 0.85 if field == "expression" else 0.95 for field in ATTRIBUTES})


def autoencoder_gate(people: int = 150) -> list[Gate]:
    """Likeness of another photo through the autoencoder, as a share of the likeness without it."""
    rng = np.random.default_rng(79)
    first, second = (np.stack([render(person("validation", i), photograph(rng)) for i in range(people)]) for _ in range(2))
    model = assets.autoencoder()
    decoded = np.concatenate([to_pictures(model.decode(model.encode(to_tensor(part)))) for part in np.array_split(second, 5)])
    a, b, c = judge_embeddings(first), judge_embeddings(second), judge_embeddings(decoded)
    error = ((decoded.astype(np.float32) - second) ** 2).reshape(people, -1).mean(1)
    psnr = float((10 * np.log10(255 ** 2 / error)).mean())
    return [
        Gate("autoencoder: likeness through it / without it", float((a * c).sum(1).mean() / (a * b).sum(1).mean()), 0.95),
        Gate("autoencoder: PSNR, dB (no gate)", psnr, 0.0),
    ]


class Generator:
    """Pictures from prompts with the shipped weights and a plain DDIM."""

    def __init__(self, steps: int = 20, guidance: float = 3.0):
        from .. import pipeline

        self._unet, self._encoder = pipeline.unet(), pipeline.text_encoder()
        self._steps, self._guidance = steps, guidance

    @torch.no_grad()
    def pictures(self, prompts: list[str], seed: int, batch: int = 24) -> np.ndarray:
        """(len(prompts), 128, 128, 3) uint8."""
        start = torch.randn(len(prompts), 4, 16, 16, generator=torch.Generator().manual_seed(seed))
        empty = self._encoder(tokenize([""])).last_hidden_state
        made = []
        for begin in range(0, len(prompts), batch):
            part = slice(begin, begin + batch)
            condition = self._encoder(tokenize(prompts[part])).last_hidden_state
            latents = noise.sample(self._predict, condition, empty, start[part], self._steps, self._guidance)
            made.append(to_pictures(assets.autoencoder().decode(latents / SD_SCALE)))
        return np.concatenate(made)

    def _predict(self, latents: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        return self._unet(latents, timestep, condition).sample


def gallery() -> Tensor:
    """(names, 512) what each named person looks like to the judge: the mean of six plain photographs."""
    rng = np.random.default_rng(80)
    rows = []
    for index in range(SPLITS["named"]):
        pictures = np.stack([render(person("named", index), photograph(rng).with_(accessory="none")) for _ in range(6)])
        rows.append(torch.nn.functional.normalize(judge_embeddings(pictures).mean(0), dim=0))
    return torch.stack(rows)


def generator_gates(count: int = 240) -> list[Gate]:
    """Names and prompts: generated pictures against real renders of the same people in the same shots."""
    rng = np.random.default_rng(81)
    who = rng.integers(SPLITS["named"], size=count)
    shots = [sample_shot(rng) for _ in range(count)]
    shots = [shot.with_(style="photo") if k % 4 else shot for k, shot in enumerate(shots)]
    pictures = Generator().pictures([captions.prompt(names()[i], shot) for i, shot in zip(who, shots)], seed=5)
    real = np.stack([render(person("named", int(i)), shot) for i, shot in zip(who, shots)])
    photos = np.array([shot.style == "photo" for shot in shots])
    known, own = gallery(), torch.from_numpy(who)
    scores, real_scores = judge_embeddings(pictures) @ known.T, judge_embeddings(real) @ known.T
    at = torch.arange(count)
    ratio = float(scores[at, own][photos].mean() / real_scores[at, own][photos].mean())
    top = float((scores.argmax(1) == own)[photos].float().mean())
    least = {"scene": 0.9, "garment": 0.9, "accessory": 0.9, "style": 0.9, "colour": 0.8, "expression": 0.6}
    return [
        Gate("name → person: cosine to own person / the real one's", ratio, 0.75),
        Gate("name → person: top-1 among all names", top, 0.5),
        *_attribute_gates("generated", pictures, shots, least),
    ]


def _attribute_gates(what: str, pictures: np.ndarray, shots: list[Shot], least: dict[str, float]) -> list[Gate]:
    seen = read_attributes(pictures)
    wanted = torch.tensor([shot.labels() for shot in shots])
    colourful = torch.tensor([shot.style in ("photo", "painting") for shot in shots])  # a sketch shows no colour
    gates = []
    for k, field in enumerate(ATTRIBUTES):
        hits = seen[:, k] == wanted[:, k]
        hits = hits[colourful] if field == "colour" else hits
        gates.append(Gate(f"{what}: {field}", float(hits.float().mean()), least[field]))
    return gates


def contact_sheet(people: tuple[int, ...] = (3, 50, 111, 158, 222, 300)) -> np.ndarray:
    """Rows: named people. Columns: the real person, then seven prompts."""
    shots = [
        Shot(), Shot(scene="beach", colour="red", expression="smiling"), Shot(scene="library", garment="suit", expression="surprised"),
        Shot(scene="mountains", colour="green", garment="sweater", accessory="glasses"),
        Shot(scene="space", colour="yellow", accessory="hat"), Shot(scene="city", style="sketch", expression="smiling"),
        Shot(scene="forest", colour="purple", garment="sweater", style="painting"),
    ]
    prompts = [captions.prompt(names()[i], shot) for i in people for shot in shots]
    made = Generator().pictures(prompts, seed=1).reshape(len(people), len(shots), 128, 128, 3)
    rows = [np.concatenate([render(person("named", i), Shot(seed=5)), *made[k]], 1) for k, i in enumerate(people)]
    return np.concatenate(rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m portrait_world.gates", description=__doc__)
    parser.add_argument("--only", choices=("judges", "autoencoder", "generator"), help="measure one group")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None, help="folder for gates.json and gates.png")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    groups = {"judges": lambda: judge_gates() + attribute_gates(), "autoencoder": autoencoder_gate, "generator": generator_gates}
    gates = [gate for key, measure in groups.items() if options.only in (None, key) for gate in measure()]
    out = options.out or cache_folder()
    out.mkdir(parents=True, exist_ok=True)
    for gate in gates:
        print(f"{'pass' if gate.passed else 'MISS'}  {gate.value:8.3f}  (at least {gate.least:.2f})  {gate.name}")
    rows = [{"gate": g.name, "value": round(g.value, 4), "least": g.least, "passed": g.passed} for g in gates]
    (out / "gates.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")
    if options.only in (None, "generator"):
        Image.fromarray(contact_sheet()).save(out / "gates.png")


if __name__ == "__main__":
    main()
