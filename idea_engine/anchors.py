"""The textual ID anchor: what an average name looks like after the text encoder (METHODS §1.2, arXiv 2312.15905)."""
from __future__ import annotations

from pathlib import Path
from typing import Sequence

import torch

from .backends.base import DiffusionBackend
from .errors import NamesError
from .tokens import prompt_inputs
from .types import IDAnchor

TOKENS_PER_IDENTITY = 2  # first and second name, METHODS §1.2
_NAMES_FILE = Path(__file__).parent / "data" / "celebrity_names.txt"


def celebrity_names() -> list[str]:
    """The shipped list, one name per entry."""
    return parse_names(_NAMES_FILE.read_text(encoding="utf-8"))


def parse_names(text: str) -> list[str]:
    """One name per line; commas separate names too; blank lines and lines that start with # are ignored.

    Raises:
        NamesError: nothing is left.
    """
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    names = [name for line in lines for part in line.split(",") if (name := " ".join(part.split()))]
    if not names:
        raise NamesError(
            "The list of names is empty, but the anchor is an average of names. "
            "Write one name per line in names_text of the ID Enhancer node, or set names to 'celebrities'."
        )
    return names


@torch.no_grad()
def compute_anchor(backend: DiffusionBackend, names: Sequence[str], count: int = TOKENS_PER_IDENTITY) -> IDAnchor:
    """Average the names' first, second, … input embeddings and read what the whole text encoder makes of them.

    A single word such as 'person' fills every position; of a longer phrase the first ``count`` tokens are used.

    Args:
        names: names or words. Names with fewer than ``count`` tokens only enter the positions they have.
        count: n, how many pseudo-tokens an identity gets.

    Raises:
        NamesError: no name holds a token the encoder knows.
    """
    spelled = [ids for name in names if (ids := backend.word_ids(name))]
    if not spelled:
        raise NamesError(
            f"None of the {len(names)} names could be tokenized, but at least one must be readable text. "
            "Check names_text of the ID Enhancer node."
        )
    columns = [[ids[i] for ids in spelled if len(ids) > i] for i in range(count)]
    columns = [column or columns[0] for column in columns]
    inputs = {
        key: torch.stack([backend.token_rows(key, torch.tensor(column, device=backend.device)).mean(0) for column in columns])
        for key in backend.family.encoders
    }
    prompt = backend.tokenize("", "", count)
    condition = backend.encode_text(prompt_inputs(backend, [prompt], inputs), [prompt.end])
    outputs = backend.family.split(condition.context[0, list(prompt.positions)])
    return IDAnchor(
        rows={key: rows.float().cpu().contiguous() for key, rows in outputs.items()},
        inputs={key: rows.float().cpu() for key, rows in inputs.items()},
        names_used=tuple(len(column) for column in columns),
    )
