"""Where identities stand in text conditions, known to the UNet side.

The host does not tell a cross-attention patch which prompt a part of the batch came from, and artists combine, concatenate, mask and cache
conditionings at will. So the text side remembers what the identity's own positions look like after encoding, and the UNet side recognises
those rows, wherever they ended up.
"""
from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Iterable, Mapping

import torch
from torch import Tensor

PROBE = 16  # features compared to recognise a row: equal in 16 floats means the same row
_CAPACITY = 1024  # prompts remembered for each identity; an animation with a prompt per frame stays below


@dataclass(frozen=True)
class BoundedPrompt:
    """A prompt whose identities act only during a part of the sampling.

    Attributes:
        rows: (L, d) as encoded with all its identities.
        without: hashes of the identities that are out of their range → (L, d) as encoded with those left as plain words.
    """

    rows: Tensor
    without: Mapping[frozenset[str], Tensor]


class Mentions:
    """What the text side of this process has encoded, the most recent prompts of each identity."""

    def __init__(self) -> None:
        self._rows: dict[str, OrderedDict[bytes, Tensor]] = {}
        self._bounded: OrderedDict[bytes, BoundedPrompt] = OrderedDict()
        self.version = 0  # rises with every change, so that readers know when to look again

    def remember(self, identity: str, rows: Tensor) -> None:
        """Rows (n, d) of a text condition where the identity with this content hash stands."""
        self._add(self._rows.setdefault(identity, OrderedDict()), rows, rows)

    def remember_bounded(self, prompt: BoundedPrompt) -> None:
        self._add(self._bounded, prompt.rows, prompt)

    def rows(self, identity: str) -> list[Tensor]:
        """Every remembered (n, d) of one identity."""
        return list(self._rows.get(identity, {}).values())

    def bounded(self, identities: Iterable[str]) -> list[BoundedPrompt]:
        """Remembered prompts that can be read without all of ``identities``."""
        wanted = frozenset(identities)
        return [prompt for prompt in self._bounded.values() if any(missing <= wanted for missing in prompt.without)]

    def _add(self, table: OrderedDict, rows: Tensor, value) -> None:
        key = rows.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
        if key in table:
            table.move_to_end(key)
            return
        table[key] = value
        while len(table) > _CAPACITY:
            table.popitem(last=False)
        self.version += 1


MENTIONS = Mentions()


def match(context: Tensor, rows: Tensor) -> Tensor:
    """Which positions of a context (B, L, d) hold which of ``rows`` (R, d): (B, L, R) bool."""
    probe = rows[:, :PROBE].to(context)
    return (context[:, :, None, :PROBE] == probe).all(-1)
