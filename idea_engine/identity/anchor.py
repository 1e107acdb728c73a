"""The textual ID anchor: what an average name looks like after the text encoder (METHODS §1.2, arXiv 2312.15905)."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Sequence

import torch

from ..backends.base import DiffusionBackend
from ..backends.templates import prompt_inputs
from ..errors import NamesError
from .enhanced import IDAnchor

TOKENS_PER_IDENTITY = 2  # first and second name, METHODS §1.2
_NAMES_FILE = Path(__file__).parents[1] / "data" / "celebrity_names.txt"


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
def with_start(anchor: IDAnchor, backend: DiffusionBackend, word: str) -> IDAnchor:
    """``anchor`` for tokens that begin as a plain word: its first n tokens, the last repeated where it has fewer.

    Raises:
        NamesError: the word cannot be tokenized.
    """
    count = len(anchor.names_used)
    if not (ids := backend.word_ids(word)):
        raise NamesError(f"The recipe starts from the word '{word}', which the text encoder does not know. Choose another recipe in the Train node.")
    filled = torch.tensor((ids + ids[-1:] * count)[:count], device=backend.device)
    return replace(anchor, start={key: backend.token_rows(key, filled).float().cpu() for key in backend.family.encoders})


@torch.no_grad()
def with_spread(anchor: IDAnchor, backend: DiffusionBackend, names: Sequence[str], batch: int = 32) -> IDAnchor:
    """``anchor`` with the spread of the names it was averaged from: each name through the whole encoder, one sample per name and position.

    Only names that fill every position are taken, for a sample must say what *that* name looks like.

    Raises:
        NamesError: fewer than two names are long enough.
    """
    count = len(anchor.names_used)
    spelled = [ids[:count] for name in names if len(ids := backend.word_ids(name)) >= count]
    if len(spelled) < 2:
        raise NamesError(f"{len(spelled)} of the names have {count} tokens, expected two at least. Write more full names in names_text of the ID Enhancer node.")
    prompt = backend.tokenize("", "", count)
    outputs: dict[str, list[torch.Tensor]] = {key: [] for key in backend.family.encoders}
    for start in range(0, len(spelled), batch):
        ids = torch.tensor(spelled[start : start + batch], device=backend.device)
        inputs = prompt_inputs(backend, [prompt] * len(ids), {})
        for key in backend.family.encoders:
            inputs[key][:, list(prompt.positions)] = backend.token_rows(key, ids.flatten()).reshape(*ids.shape, -1)
        condition = backend.encode_text(inputs, [prompt.end] * len(ids))
        for key, rows in backend.family.split(condition.context[:, list(prompt.positions)]).items():
            outputs[key].append(rows.float().cpu())
    spread = {}
    for key, parts in outputs.items():
        centred = (rows := torch.cat(parts)) - rows.mean(0)  # per position: first names differ from last names in the mean
        centred = centred.flatten(0, 1) / (len(spelled) * count - count) ** 0.5
        _, singular, axes = torch.linalg.svd(centred, full_matrices=False)
        spread[key] = singular[:, None] * axes
    return replace(anchor, spread=spread)


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
