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

from ...idea_engine.applying.applied import CHUNK

_PROBE = 16  # features compared at each end of a row: SDXL joins two encoders, which may have read two different texts
_CAPACITY = 1024  # prompts remembered for each identity; an animation with a prompt per frame stays below
_BOUNDED_BYTES = 512 * 2**20  # whole text conditions of prompts with ranges: 1,000 of SDXL's would take more than 1 GB


@dataclass(frozen=True)
class BoundedPrompt:
    """A prompt whose identities act only during a part of the sampling.

    Attributes:
        rows: (R, d) as encoded with all its identities.
        positions: of the rows in which people stand.
        repeats: how often the rows follow one another in the text condition, so that it is as long as the variants, L = repeats · R.
        without: mentions that are out of their range → (L, d) as encoded with those left as plain words.
    """

    rows: Tensor
    repeats: int
    without: Mapping[frozenset[str], Tensor]
    positions: tuple[int, ...] = ()

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
        weight: what the prompt gives it: 1.2 in ``(<anna>:1.2)``.
    """

    rows: Tensor
    staged: Tensor | None = None
    weight: float = 1.0


class Mentions:
    """What the text side of this process has encoded, the most recent prompts of each identity."""

    def __init__(self) -> None:
        self._mentions: dict[str, OrderedDict[bytes, Mention]] = {}
        self._bounded: OrderedDict[bytes, BoundedPrompt] = OrderedDict()
        self._bounded_bytes = 0
        self._indexes: dict[tuple[torch.dtype, torch.device, int], tuple[int, _Index, _Index]] = {}
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

    def bounded_in(self, context: Tensor) -> list[BoundedPrompt]:
        """The remembered prompts with ranges that a context (B, L, d) holds, found by look-up: it costs the same however many are remembered.

        Prompts that begin alike have the same rows for their people. What they end with tells them apart; where a node has cut the endings
        off, all that begin so are given.
        """
        by_people, by_endings = self._index(context)
        own = signatures(context).flatten() if by_people else None
        begun = by_people.find(own) if by_people else []
        if not begun:
            return []
        ended = {id(prompt) for prompt in by_endings.find(own)}
        return [prompt for prompt in begun if id(prompt) in ended] or begun

    def _index(self, context: Tensor) -> "tuple[_Index, _Index]":
        """The bounded prompts of a context's width, by the rows in which people stand, and by the last row of every chunk."""
        dtype, device, width = key = context.dtype, context.device, context.shape[-1]
        cached = self._indexes.get(key)
        if cached is None or cached[0] != self.version:
            prompts = [prompt for prompt in self._bounded.values() if prompt.rows.shape[-1] == width]
            people = _Index([(prompt, prompt.rows[list(prompt.positions) or slice(None)]) for prompt in prompts], dtype, device)
            endings = _Index([(prompt, prompt.rows[CHUNK - 1 :: CHUNK] if len(prompt.rows) >= CHUNK else prompt.rows[-1:]) for prompt in prompts], dtype, device)
            cached = (self.version, people, endings)
            self._indexes = {**{known: one for known, one in self._indexes.items() if one[0] == self.version}, key: cached}
        return cached[1:]


class _Index:
    """Prompts by the signatures of rows that tell them."""

    def __init__(self, prompts: list[tuple[BoundedPrompt, Tensor]], dtype: torch.dtype, device: torch.device):
        self._prompts: dict[int, list[BoundedPrompt]] = {}
        if prompts:
            own = signatures(torch.cat([rows.to(dtype=dtype) for _, rows in prompts])).tolist()
            owners = [prompt for prompt, rows in prompts for _ in range(len(rows))]
            for signature, prompt in zip(own, owners):
                self._prompts.setdefault(signature, []).append(prompt)
        self._held = torch.tensor(sorted(self._prompts), dtype=torch.int64, device=device)

    def __bool__(self) -> bool:
        return bool(self._prompts)

    def find(self, own: Tensor) -> list[BoundedPrompt]:
        """Every prompt one of whose signatures is among ``own`` (K,), each once, in the order in which they were remembered."""
        found = own[torch.isin(own, self._held)].unique().tolist()
        return list({id(prompt): prompt for one in found for prompt in self._prompts[one]}.values())


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


def found_rows(context: Tensor, rows: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """Which positions of a context hold one of many rows, and which: (B, L) bool and (B, L), from their :func:`signatures`.

    Args:
        context: (B, L). rows: (R,) sorted. order: (R,) what each of them is numbered.
    """
    at = torch.searchsorted(rows, context).clamp(max=len(rows) - 1)
    return rows[at] == context, order[at]


def match(context: Tensor, rows: Tensor) -> Tensor:
    """Which positions of a context (B, L, d) hold which of ``rows`` (R, d): (B, L, R) bool."""
    return signatures(context)[:, :, None] == signatures(rows.to(context))
