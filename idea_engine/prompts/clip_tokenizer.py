"""CLIP's byte-pair encoding, from its published merges (MIT licence): words → ids, padded to 77.

The vocabulary is a function of the merges, so only they are shipped. Hosts and diffusers bring their own tokenizer; this
one is for FaceCLIP's prompts, for training the Portrait World, and to give diffusers its files with no download.
"""
from __future__ import annotations

import bz2
import html
import json
import re
import unicodedata
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ..files.atomic_write import atomic_write
from ..files.fingerprint import content_key

LENGTH = 77
START, END = 49406, 49407  # END also pads
VOCABULARY_SIZE = 49408

_MERGES = Path(__file__).parents[1] / "data" / "clip_merges.txt.bz2"
# CLIP's word pattern, written for the standard library: letters, single digits, or runs of anything else
_PATTERN = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|[^\s\w]+|_+"
# What CLIP's own clean-up (ftfy) does to the letters of a prompt: straight quotes, ordinary widths, no ligatures
_LETTERS = {
    **dict.fromkeys([0x2BC, *range(0x2018, 0x201C)], "'"), **dict.fromkeys(range(0x201C, 0x2020), '"'),
    **{0xFF01 + step: chr(0x21 + step) for step in range(94)}, 0x3000: " ",
    **{code: unicodedata.normalize("NFKC", chr(code)) for code in range(0xFB00, 0xFB07)},
}


@lru_cache(maxsize=1)
def merges() -> tuple[tuple[str, str], ...]:
    """The ordered merge rules."""
    lines = bz2.decompress(_MERGES.read_bytes()).decode("utf-8").split("\n")
    return tuple(tuple(line.split()) for line in lines)


@lru_cache(maxsize=1)
def vocabulary() -> dict[str, int]:
    """Token text → id: the bytes, the bytes that end a word, the merges, and the two special tokens."""
    characters = list(_byte_characters().values())
    tokens = characters + [c + "</w>" for c in characters] + ["".join(pair) for pair in merges()]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: index for index, token in enumerate(tokens)}


def encode(text: str) -> list[int]:
    """The ids of a text without start, end and padding."""
    ids: list[int] = []
    for word in re.findall(_PATTERN, " ".join(_cleaned(text).split()).lower()):
        spelled = "".join(_byte_characters()[byte] for byte in word.encode("utf-8"))
        ids += _word_ids(spelled)
    return ids


def _cleaned(text: str) -> str:
    """As CLIP was trained to read: entities of web pages resolved (twice, as there), one way to write each letter and quote."""
    return unicodedata.normalize("NFC", html.unescape(html.unescape(text)).translate(_LETTERS))


def tokenize(texts: list[str]) -> Tensor:
    """(B, 77) int64: start, ids, end, padding with the end token; longer texts are cut."""
    rows = []
    for text in texts:
        ids = [START, *encode(text)[:LENGTH - 2], END]
        rows.append(ids + [END] * (LENGTH - len(ids)))
    return torch.tensor(rows)


def write_files(folder: Path) -> tuple[Path, Path]:
    """Write ``vocab.json`` and ``merges.txt`` for transformers' CLIPTokenizer, unless they are there; returns their paths. Another process may be
    reading them.
    """
    folder = folder / content_key(_MERGES.read_bytes())  # other rules, another folder
    vocab_path, merges_path = folder / "vocab.json", folder / "merges.txt"
    if vocab_path.is_file() and merges_path.is_file():  # each was written wholly or not at all
        return vocab_path, merges_path
    atomic_write(vocab_path, json.dumps(vocabulary(), ensure_ascii=False).encode())
    atomic_write(merges_path, ("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges()) + "\n").encode())
    return vocab_path, merges_path


@lru_cache(maxsize=1)
def _byte_characters() -> dict[int, str]:
    """GPT-2's reversible map of bytes to printable characters."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    mapped, extra = {byte: chr(byte) for byte in printable}, 0
    for byte in range(256):
        if byte not in mapped:
            mapped[byte] = chr(256 + extra)
            extra += 1
    return mapped


@lru_cache(maxsize=1)
def _ranks() -> dict[tuple[str, str], int]:
    return {pair: rank for rank, pair in enumerate(merges())}


@lru_cache(maxsize=8192)
def _word_ids(word: str) -> tuple[int, ...]:
    special = vocabulary().get(word) if word.startswith("<|") else None
    if special is not None:
        return (special,)
    parts = [*word[:-1], word[-1] + "</w>"]
    while len(parts) > 1:
        pairs = list(zip(parts, parts[1:]))
        best = min(pairs, key=lambda pair: _ranks().get(pair, len(_ranks())))
        if best not in _ranks():
            break
        joined, i = [], 0
        while i < len(parts):
            if tuple(parts[i:i + 2]) == best:
                joined.append("".join(best))
                i += 2
            else:
                joined.append(parts[i])
                i += 1
        parts = joined
    return tuple(vocabulary()[part] for part in parts)
