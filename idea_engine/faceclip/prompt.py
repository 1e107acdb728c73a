"""Prompts as FaceCLIP reads them: weights such as (word:1.2), the prefix that carries the face, chunks of 77."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import torch
from torch import Tensor

from ..prompts.clip_tokenizer import END, START
from ..prompts.weights import weighted_parts
from .config import FaceCLIPConfig

Words = Callable[[str], list[int]]  # text → CLIP's token ids, without start, end and padding

_FACE_WORD = "id"
_UNSPLIT = 8  # a word of fewer tokens is never cut by the end of a chunk; the hosts' own rule


@dataclass(frozen=True)
class Chunks:
    """Prompts as token ids, every prompt with the same number of chunks.

    Attributes:
        ids: (B, K, L) int64.
        weights: (B, K, L) float32; 1 at the prefix, the start, the end and the padding.
        face_at: position of the face in every chunk, None without a face.
    """

    ids: Tensor
    weights: Tensor
    face_at: int | None


def chunks(prompts: list[str], words: Words, config: FaceCLIPConfig, with_face: bool) -> Chunks:
    """Token ids and weights of prompts.

    A prompt longer than one chunk goes on in the next, and every chunk begins with the prefix, so that each of them knows the face.
    A prompt that says ``id`` itself keeps the word: the face stands only in the prefix.
    """
    prefix = words(config.prefix) if with_face else []
    face_at = 1 + prefix.index(words(_FACE_WORD)[0]) if with_face else None
    room = config.length - 2 - len(prefix)
    listed = [_fill([unit for part in weighted_parts(prompt) for unit in _units(part, words)], room) for prompt in prompts]
    count = max(map(len, listed))
    ids = torch.full((len(prompts), count, config.length), config.pad, dtype=torch.long)
    weights = torch.ones(len(prompts), count, config.length)
    for row, filled in enumerate(listed):
        for number in range(count):
            tokens = filled[number] if number < len(filled) else []
            line = [START, *prefix, *(token for token, _ in tokens), END]
            ids[row, number, :len(line)] = torch.tensor(line)
            if tokens:
                weights[row, number, 1 + len(prefix):len(line) - 1] = torch.tensor([weight for _, weight in tokens])
    return Chunks(ids, weights, face_at)


def _units(part: tuple[str, float], words: Words) -> list[list[tuple[int, float]]]:
    """The words of a part, each as its tokens with their weight."""
    text, weight = part
    return [[(token, weight) for token in words(word)] for word in text.split()]


def _fill(units: list[list[tuple[int, float]]], room: int) -> list[list[tuple[int, float]]]:
    """Words → chunks of at most ``room`` tokens; at least one chunk."""
    filled: list[list[tuple[int, float]]] = [[]]
    for unit in units:
        if len(filled[-1]) + len(unit) > room and len(unit) < _UNSPLIT:
            filled.append([])
        for token in unit:
            if len(filled[-1]) == room:
                filled.append([])
            filled[-1].append(token)
    return filled
