"""Where identities stand in text conditions, known to the UNet side.

The host does not tell a cross-attention patch which prompt a part of the batch came from, and artists combine, concatenate, mask and cache
conditionings at will. So the text side remembers what the identity's own positions look like after encoding, and the UNet side recognises
those rows, wherever they ended up.
"""
from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Mapping

import torch
from torch import Tensor

_PROBE = 16  # features compared at each end of a row: SDXL joins two encoders, which may have read two different texts
_CAPACITY = 1024  # prompts remembered for each identity; an animation with a prompt per frame stays below
_BOUNDED_BYTES = 512 * 2**20  # whole text conditions of prompts with ranges: 1,000 of SDXL's would take more than 1 GB


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

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes + sum(variant.nbytes for variant in self.without.values())

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
        self._bounded_bytes = 0
        self.version = 0  # rises with every change, so that readers know when to look again

    def remember(self, identity: str, mention: Mention) -> None:
        """Where the identity with this content hash stands in a prompt."""
        table = self._mentions.setdefault(identity, OrderedDict())
        key = _digest(mention.rows)
        if key not in table:
            self.version += 1
        table[key] = mention
        table.move_to_end(key)
        while len(table) > _CAPACITY:
            table.popitem(last=False)

    def remember_bounded(self, prompt: BoundedPrompt) -> None:
        """The same prompt encoded again, with other ranges or triggers, adds to what it can leave out."""
        key = _digest(prompt.rows) + bytes([prompt.repeats])
        if key in self._bounded:
            known = self._bounded.pop(key)
            self._bounded_bytes -= known.nbytes
            prompt = replace(prompt, without={**known.without, **prompt.without})
        self.version += 1
        self._bounded[key] = prompt
        self._bounded_bytes += prompt.nbytes
        while len(self._bounded) > 1 and (len(self._bounded) > _CAPACITY or self._bounded_bytes > _BOUNDED_BYTES):
            self._bounded_bytes -= self._bounded.popitem(last=False)[1].nbytes

    def of(self, identity: str) -> list[Mention]:
        """Every remembered mention of one identity."""
        return list(self._mentions.get(identity, {}).values())

    def bounded(self, absent: frozenset[str]) -> list[BoundedPrompt]:
        """Remembered prompts that can be read without some of the mentions ``absent``."""
        return [prompt for prompt in self._bounded.values() if any(missing <= absent for missing in prompt.without)]


def _digest(rows: Tensor) -> bytes:
    return hashlib.sha256(rows.detach().to("cpu", torch.float32).contiguous().numpy()).digest()


MENTIONS = Mentions()


def signatures(rows: Tensor) -> Tensor:
    """(..., d) → (...) int64: equal for equal rows, and never, but by a chance of about 2⁻⁵⁰, for others. Nothing waits for the device."""
    probe = torch.cat([rows[..., :_PROBE], rows[..., -_PROBE:]], dim=-1) + 0.0  # there are two zeros, and they are equal
    bits = probe.view(torch.int32 if probe.element_size() == 4 else torch.int16).long()
    return (bits * _factors(bits.shape[-1], bits.device)).sum(-1)


@lru_cache(maxsize=8)
def _factors(count: int, device: torch.device) -> Tensor:
    return torch.randint(-(2**63), 2**63 - 1, (count,), generator=torch.Generator().manual_seed(0)).bitwise_or(1).to(device)


def equal_signatures(context: Tensor, rows: Tensor) -> Tensor:
    """Which positions of a context hold which rows, from their :func:`signatures`, (B, L) and (R,): (B, L, R) bool."""
    return context[:, :, None] == rows


def match(context: Tensor, rows: Tensor) -> Tensor:
    """Which positions of a context (B, L, d) hold which of ``rows`` (R, d): (B, L, R) bool."""
    return equal_signatures(signatures(context), signatures(rows.to(context)))
