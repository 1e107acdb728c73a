"""Teaches the text encoder its words before the denoiser needs them: from a caption's end, read out the person and the shot.

CLIP learns this from pictures; in a closed world the truth about each picture is known, so the encoder learns from that:
a regression of the face's traits and a classification of everything that has names. Minutes instead of hours.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import tokenizer
from ..networks.text_encoder import WIDTH, TextEncoder
from ..world.people import BEARDS, EYE_COLOURS, HAIR_COLOURS, HAIR_STYLES, TRAITS, Person
from ..world.portrayal import ATTRIBUTES
from .captioned import Captioned
from .session import Schedule, Session

SCHEDULE = Schedule(steps=700, rate=1e-3, warmup=50, weight_decay=1e-3, seed=4)
BATCH, LENGTH = 192, 40  # causal attention: positions after the end change nothing before it, so they need no encoding
_BEARD_WORDS = tuple(dict.fromkeys(BEARDS))
_CLASSES = [len(HAIR_STYLES), len(HAIR_COLOURS), len(EYE_COLOURS), len(_BEARD_WORDS), 2] + [len(w) for w in ATTRIBUTES.values()]


def train() -> TextEncoder:
    """The text encoder, pretrained; the denoiser's training goes on from here."""
    torch.manual_seed(SCHEDULE.seed)
    encoder, readout = TextEncoder(), nn.Linear(WIDTH, len(TRAITS) + sum(_CLASSES))
    table = encoder.text_model.embeddings.token_embedding.weight
    others = [p for p in [*encoder.parameters(), *readout.parameters()] if p is not table]
    groups = [{"params": [table], "boost": 4.0}, {"params": others}]
    session = Session("text", {"encoder": encoder, "readout": readout}, SCHEDULE, groups)
    captioned = Captioned(session.rng)

    def loss() -> tuple[Tensor, dict[str, float]]:
        rows = captioned.draw(BATCH)
        ids = tokenizer.tokenize([captioned.caption(row) for row in rows])[:, :LENGTH]
        ends = (ids == tokenizer.END).float().argmax(1)
        with torch.autocast("cpu", torch.bfloat16):
            encoded = encoder(ids)
        said = readout(encoded.float()[torch.arange(BATCH), ends])
        traits, logits = said[:, :len(TRAITS)], said[:, len(TRAITS):].split(_CLASSES, 1)
        people = [captioned.person(row) for row in rows]
        wanted_traits = torch.tensor([[person.traits[t] - 0.5 for t in TRAITS] for person in people])
        wanted = torch.tensor([_labels(person) + captioned.shots[row].labels() for person, row in zip(people, rows)])
        trait_loss = ((traits - wanted_traits) ** 2).mean() * 12  # 1 = knows nothing: the traits are uniform
        class_loss = sum(nn.functional.cross_entropy(part, wanted[:, k]) for k, part in enumerate(logits)) / len(logits)
        named = torch.from_numpy(rows < captioned.named_count)
        hits = (logits[0].argmax(1) == wanted[:, 0]).float()[named].mean()
        return 2 * trait_loss + 2 * class_loss, {"traits": float(trait_loss.detach()), "hair_by_name": float(hits)}

    session.run(loss)
    return encoder


def _labels(who: Person) -> list[int]:
    return [
        HAIR_STYLES.index(who.hair), HAIR_COLOURS.index(who.hair_colour), EYE_COLOURS.index(who.eye_colour),
        _BEARD_WORDS.index(who.beard), int(who.freckles is not None),
    ]
