"""Rows for stand-in words, given to the text encoder where a node's own tokens reach it."""
from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import Iterator, Mapping

from torch import Tensor, nn

from ...idea_engine.applying.applied import CHUNK, AppliedIdentity, Place
from ...idea_engine.prompts.clip_tokenizer import END
from .trigger_tokens import ForeignChunks


class Seen:
    """Where stand-in words came by, encoder after encoder and chunk after chunk."""

    def __init__(self) -> None:
        self.people: dict[str, AppliedIdentity] = {}
        self.at: dict[str, dict[tuple[str, int], list[int]]] = {}  # letter → (mention, token) → positions
        self.length: dict[str, int] = {}
        self.ends: dict[str, list[int]] = {}

    def places(self, length: int) -> list[Place]:
        """Every mention in a condition of ``length`` positions; none where the encoder was not asked chunk by chunk, so that nothing is put wrong."""
        made = []
        for mention, one in self.people.items():
            for letter, found in self.at.items():
                starts = found.get((mention, 0), [])
                whole = [s for s in starts if all(s + token in found.get((mention, token), ()) for token in range(one.identity.token_count))]
                if whole and self.length[letter] == length:
                    made += [Place(one, tuple(range(s, s + one.identity.token_count)), self._ending(s, length)) for s in whole]
                    break
        return made

    def _ending(self, start: int, length: int) -> tuple[int, ...]:
        first = start // CHUNK * CHUNK
        last = min(first + CHUNK, length)
        marks = [min((e for e in ends if first < e < last), default=last) for ends in self.ends.values()]
        return tuple(range(max(marks), last))


@contextmanager
def reading_stand_ins(modules: Mapping[str, nn.Module], foreign: Mapping[str, ForeignChunks]) -> Iterator[Seen]:
    """While open, the host's text encoders read people's rows where stand-in words are.

    Args:
        modules: encoder letter → the host's ``SDClipModel``.
        foreign: encoder letter → the chunks with the stand-in words.
    """
    seen = Seen()
    with ExitStack() as stack:
        for letter, module in modules.items():
            hook = module.transformer.register_forward_pre_hook(_exchanging(module.transformer, letter, foreign[letter], seen), with_kwargs=True)
            stack.callback(hook.remove)
        yield seen


def _exchanging(transformer: nn.Module, letter: str, chunks: ForeignChunks, seen: Seen):
    text = chunks.text
    ids = chunks.stand_ins
    seen.at.setdefault(letter, {})
    seen.length.setdefault(letter, 0)
    seen.ends.setdefault(letter, [])

    def exchange(module, args, kwargs):
        rows = kwargs.get("embeds")
        if not isinstance(rows, Tensor):
            return None  # a host that hands over token numbers; nothing was seen, and that is said
        table = transformer.get_input_embeddings().weight
        start = seen.length[letter]
        seen.length[letter] += rows.shape[0] * rows.shape[1]
        flat = rows.flatten(0, 1).clone()
        seen.ends[letter] += [start + at for at in _where(flat, table[END])]
        for number, (applied, token) in ids.items():
            at = _where(flat, table[number])
            flat[at] = text.rows(applied, letter)[token].to(flat)
            seen.people[applied.mention] = applied
            seen.at[letter].setdefault((applied.mention, token), []).extend(start + position for position in at)
        return args, {**kwargs, "embeds": flat.view(rows.shape)}

    return exchange


def _where(rows: Tensor, row: Tensor) -> list[int]:
    return (rows == row.to(rows)).all(-1).nonzero()[:, 0].tolist()
