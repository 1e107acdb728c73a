"""Where people stand: in the host's token chunks, and as layers of the condition that is made of them."""
from __future__ import annotations

from typing import Mapping, Sequence

import torch
from torch import Tensor

from ...idea_engine.applying.applied import CHUNK, AppliedIdentity, Place
from ...idea_engine.prompts.clip_tokenizer import END
from .carried import NOBODY, Ending, Layer, Standing, carry, spread
from .trigger_tokens import mark_of


def find_places(pairs, applied: Sequence[AppliedIdentity]) -> list[Place]:
    """Where each identity's pseudo-tokens stand in the host's token chunks.

    Of SDXL's two texts the first that mentions an identity counts. Rows are told apart by who was written; rows that a node has copied, by their
    numbers: then one person under two names has one place at each mention.

    Args:
        pairs: encoder letter (``l``, ``g``, ``h``) → chunks of (token, weight, …), a token being an id or a tensor.
    """
    places = []
    texts = list(pairs.values()) if isinstance(pairs, Mapping) else [pairs]
    claimed: dict[str, dict[int, str]] = {}
    for one in applied:
        for encoder, rows in one.faded.tokens.items():
            letter = encoder.removeprefix("clip_")
            chunks = pairs.get(letter, []) if isinstance(pairs, Mapping) else pairs
            entries = [entry for chunk in chunks for entry in chunk]
            found = starts([entry[0] for entry in entries], one, rows, claimed.setdefault(letter, {}))
            if found:
                places += [Place(one, tuple(range(start, start + len(rows))), ending_of(texts, start), float(entries[start][1])) for start in found]
                break
    return places


def starts(tokens: Sequence, applied: AppliedIdentity, rows: Tensor, claimed: dict[int, str]) -> list[int]:
    """Where the n rows of a person begin among tokens; rows without a mark belong to the first who has the same numbers."""
    count = len(rows)
    marks = [mark_of(token) for token in tokens]

    def stands(start: int) -> bool:
        own = marks[start : start + count]
        return len(own) == count and all(mark is not None and mark.applied.mention == applied.mention and mark.token == i for i, mark in enumerate(own))

    found = [start for start, mark in enumerate(marks) if mark is not None and mark.token == 0 and stands(start)]
    copied = [None if mark is not None else token for mark, token in zip(marks, tokens)]
    found += [start for start in positions_of(copied, rows) if claimed.setdefault(start, applied.mention) == applied.mention]
    return sorted(found)


def ending_of(texts: Sequence[Sequence], position: int) -> tuple[int, ...]:
    """The positions from the end mark on of the chunk that holds ``position``; of SDXL's two texts the longer one counts."""
    number, offset = divmod(position, CHUNK)
    chunks = [text[number] for text in texts if number < len(text)]
    first = max(next((i for i, entry in enumerate(chunk) if not torch.is_tensor(entry[0]) and entry[0] == END), len(chunk)) for chunk in chunks)
    return tuple(range(position - offset + first, position - offset + min(map(len, chunks))))


def positions_of(tokens: Sequence, rows: Tensor) -> list[int]:
    """Where ``rows`` (n, w) follow one another among tokens, each an id or a row (w); nowhere if there are none."""
    found, position = [], 0
    while len(rows) and position <= len(tokens) - len(rows):
        if all(torch.is_tensor(token) and token.shape == row.shape and torch.equal(token, row) for token, row in zip(tokens[position:], rows)):
            found.append(position)
            position += len(rows)
        else:
            position += 1
    return found


def standing(places: Sequence[Place], condition: Tensor, absent: frozenset[str] = NOBODY, endings: bool = False) -> dict[Layer, Tensor]:
    """The layers that say where people stand in a condition (1, L, d); ``endings``: and where the ending of each belongs."""
    weights: dict[Layer, Tensor] = {}

    def put(key: Layer, positions: Sequence[int], weight: float) -> None:
        row = weights.setdefault(key, torch.zeros(condition.shape[:2], dtype=condition.dtype, device=condition.device))
        row[:, list(positions)] = weight

    for place in sorted(places, key=lambda one: abs(one.weight)):  # of several in a chunk the heaviest decides on the ending
        for token, position in enumerate(place.positions):
            put(Standing(place.applied.mention, token, absent), (position,), place.weight)
        if endings:
            put(Ending(place.applied.mention, absent), place.ending, place.weight)
    return {key: spread(row, condition.shape[-1]) for key, row in weights.items()}


def with_layers(pooled: Tensor | None, layers: dict[Layer, Tensor]) -> Tensor | None:
    """A pooled feature with what it is without those who come and go, where every one of these is known."""
    return carry(pooled, layers) if layers and all(isinstance(one, Tensor) for one in (pooled, *layers.values())) else pooled
