"""A prompt with some of its people as plain words, whatever a node has made of its token chunks since."""
from __future__ import annotations

from difflib import SequenceMatcher
from typing import Mapping, Sequence

from .trigger_tokens import ForeignChunks, is_id, mark_of


def without(pairs: Mapping[str, Sequence], absent: frozenset[str]) -> dict[str, Sequence]:
    """The host's token chunks with the mentions ``absent`` as plain words, whatever a node has made of the chunks since."""
    left = {letter: _chunks_without(letter, chunks, absent) for letter, chunks in pairs.items()}
    # Where SDXL's two texts differ, spelling a trigger out may take one of them into another chunk; the host joins equal lengths only.
    if any(isinstance(chunks, ForeignChunks) for chunks in pairs.values()):
        return left
    count = min(map(len, left.values()))
    return {letter: chunks[:count] for letter, chunks in left.items()}


def _chunks_without(letter: str, chunks: Sequence, absent: frozenset[str]) -> Sequence:
    if isinstance(chunks, ForeignChunks):
        return chunks.text.chunks(absent)[letter]
    marks = [mark_of(entry[0]) for chunk in chunks for entry in chunk]
    texts = {id(mark.text): mark.text for mark in marks if mark is not None and mark.applied.mention in absent}
    chunks = [list(chunk) for chunk in chunks]
    for text in texts.values():
        own, plain = text.chunks().get(letter), text.chunks(absent).get(letter)
        start = _run(chunks, own) if own and plain else None
        if start is not None:
            chunks[start : start + len(own)] = _weighed_alike(chunks[start : start + len(own)], own, plain)
    return [_exchanged(chunk, absent) for chunk in chunks]


def _run(chunks: Sequence[Sequence], own: Sequence[Sequence]) -> int | None:
    """Where the chunks of a text stand among others, token by token; their weights may have been changed."""

    def reads(chunk) -> list:
        return [id(mark_of(entry[0])) if mark_of(entry[0]) else entry[0] if is_id(entry[0]) else id(entry[0]) for entry in chunk]

    wanted, given = [reads(chunk) for chunk in own], [reads(chunk) for chunk in chunks]
    return next((start for start in range(len(given) - len(wanted) + 1) if given[start : start + len(wanted)] == wanted), None)


def _weighed_alike(given: Sequence[Sequence], own: Sequence[Sequence], plain: Sequence[Sequence]) -> list[list[tuple]]:
    """The plain chunks with the weights, and as many fields, as a node has given the chunks since they were cut."""
    now, before, after = ([entry for chunk in part for entry in chunk] for part in (given, own, plain))
    fields = len(now[0])
    if all(one[1] == other[1] for one, other in zip(now, before)):
        return [[tuple(entry[:fields]) for entry in chunk] for chunk in plain]
    names = [[entry[0] if is_id(entry[0]) else str(id(mark_of(entry[0]))) for entry in part] for part in (now, after)]
    weights = [entry[1] for entry in after]
    for kind, low, high, start, end in SequenceMatcher(None, *names, autojunk=False).get_opcodes():
        for offset in range(end - start):
            if high > low:
                weights[start + offset] = now[min(low + offset, high - 1)][1]
    left = iter(zip(after, weights))
    return [[(entry[0], weight, *entry[2:fields]) for entry, weight in (next(left) for _ in chunk)] for chunk in plain]


def _exchanged(chunk: list[tuple], absent: frozenset[str]) -> list[tuple]:
    """A chunk of a text that was cut into pieces: the trigger's own words in the rows' places, as many as fit, at the length it had."""
    result, spent = [], 0
    for entry in chunk:
        mark = mark_of(entry[0])
        if mark is None or mark.applied.mention not in absent:
            result.append(entry)
        elif mark.token == 0:
            inner = getattr(mark.text._tokenizer, f"clip_{mark.letter}")
            words = list(inner.tokenizer(mark.applied.identity.trigger)["input_ids"])[1:-1]
            result += [(word, *entry[1:]) for word in words]
            spent += len(words) - mark.applied.identity.token_count
    return _fitted(result, chunk, len(chunk)) if len(result) != len(chunk) else result


def _fitted(entries: list[tuple], chunk: list[tuple], length: int) -> list[tuple]:
    ending = chunk[-1]
    if len(entries) < length:
        return entries + [ending] * (length - len(entries))
    # What is too long gives up padding, then its last words, and keeps an end mark.
    end = next((entry for entry in reversed(chunk) if is_id(entry[0])), ending)
    return entries[:length] if entries[length - 1][0] == end[0] else [*entries[: length - 1], end]
