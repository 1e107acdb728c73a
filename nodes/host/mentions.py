"""Where identities stand in text conditions, known to the UNet side.

The host does not tell a cross-attention patch which prompt a part of the batch came from, and artists combine, concatenate, mask and cache
conditionings at will. So the text side remembers what the identity's own positions look like after encoding, and the UNet side recognises
those rows, wherever they ended up.
"""
from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Mapping

import torch
from torch import Tensor

_PROBE = 16  # features compared at each end of a row: SDXL joins two encoders, which may have read two different texts
_CAPACITY = 1024  # prompts remembered for each identity; an animation with a prompt per frame stays below


@dataclass(frozen=True)
class BoundedPrompt:
    """A prompt whose identities act only during a part of the sampling.

    Attributes:
        rows: (R, d) as encoded with all its identities.
        repeats: how often the rows follow one another in the text condition, so that it is as long as the variants, L = repeats · R.
        without: mentions that are out of their range → (L, d) as encoded with those left as plain words.
    """

    rows: Tensor
    repeats: int
    without: Mapping[frozenset[str], Tensor]

    def variant(self, absent: frozenset[str]) -> Tensor:
        """(L, d) without as many of ``absent`` as were foreseen together."""
        return self.without[max((missing for missing in self.without if missing <= absent), key=len)]

    def locate(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Which of the L positions of this prompt each position of a context (B, L', d) holds: (B, L') bool whether any, and (B, L') which."""
        held = match(context, self.rows)
        row = held.int().argmax(-1)
        turn = held.cumsum(1).gather(-1, row[..., None])[..., 0] - 1  # how often the same row has come before
        return held.any(-1), row + len(self.rows) * (turn % self.repeats)


@dataclass(frozen=True)
class Mention:
    """An identity in an encoded prompt.

    Attributes:
        rows: (n, d) of the text condition where it stands.
        staged: (S, 2, n, d): what keys and values read there instead, stage by stage; None for an identity without stages.
    """

    rows: Tensor
    staged: Tensor | None = None


class Mentions:
    """What the text side of this process has encoded, the most recent prompts of each identity."""

    def __init__(self) -> None:
        self._mentions: dict[str, OrderedDict[bytes, Mention]] = {}
        self._bounded: OrderedDict[bytes, BoundedPrompt] = OrderedDict()
        self.version = 0  # rises with every change, so that readers know when to look again

    def remember(self, identity: str, mention: Mention) -> None:
        """Where the identity with this content hash stands in a prompt."""
        table = self._mentions.setdefault(identity, OrderedDict())
        key = _digest(mention.rows)
        if key not in table:
            self.version += 1
        self._keep(table, key, mention)

    def remember_bounded(self, prompt: BoundedPrompt) -> None:
        """The same prompt encoded again, with other ranges or triggers, adds to what it can leave out."""
        key = _digest(prompt.rows) + bytes([prompt.repeats])
        if key in self._bounded:
            prompt = replace(prompt, without={**self._bounded[key].without, **prompt.without})
        self.version += 1
        self._keep(self._bounded, key, prompt)

    def of(self, identity: str) -> list[Mention]:
        """Every remembered mention of one identity."""
        return list(self._mentions.get(identity, {}).values())

    def bounded(self, absent: frozenset[str]) -> list[BoundedPrompt]:
        """Remembered prompts that can be read without some of the mentions ``absent``."""
        return [prompt for prompt in self._bounded.values() if any(missing <= absent for missing in prompt.without)]

    def _keep(self, table: OrderedDict, key: bytes, value) -> None:
        table[key] = value
        table.move_to_end(key)
        while len(table) > _CAPACITY:
            table.popitem(last=False)


def _digest(rows: Tensor) -> bytes:
    return hashlib.sha256(rows.detach().to("cpu", torch.float32).contiguous().numpy()).digest()


MENTIONS = Mentions()


def match(context: Tensor, rows: Tensor) -> Tensor:
    """Which positions of a context (B, L, d) hold which of ``rows`` (R, d): (B, L, R) bool."""
    return (_probe(context)[:, :, None] == _probe(rows).to(context)).all(-1)


def _probe(rows: Tensor) -> Tensor:
    return torch.cat([rows[..., :_PROBE], rows[..., -_PROBE:]], dim=-1)
