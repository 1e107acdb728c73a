"""``<anna>`` in a prompt becomes the rows of her pseudo-tokens among the host's tokens, whichever node cuts the text.

The host's own way for rows in a prompt is ``embedding:NAME``: the trigger is rewritten to such a name before anybody tokenizes, and one private method
of the inner tokenizer serves the rows. Where that does not work, because a node brings a tokenizer of its own or the host's method has changed, stand-in
words take the places and are exchanged for the rows afterwards, in the token chunks that every text node passes on. Each row remembers
whose it is and which text it stands in, so a prompt can be had again without some of its people, even where a node has rebuilt the chunks.
"""
from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Iterator, Mapping, Sequence

from torch import Tensor

from ...idea_engine.applying.applied import AppliedIdentity
from ...idea_engine.prompts.trigger import trigger_pattern

_MARK = "_idea_mark"
_subclasses: dict[tuple[type, type], type] = {}


def subclassed(original, mixin: type, **attributes):
    """A shallow copy of ``original`` that behaves like ``mixin`` first; weights and vocabulary are shared."""
    duplicate = copy.copy(original)
    if not isinstance(original, mixin):
        kind = type(original)
        if (kind, mixin) not in _subclasses:
            _subclasses[kind, mixin] = type(kind.__name__, (mixin, kind), {"__module__": kind.__module__})
        duplicate.__class__ = _subclasses[kind, mixin]
    for name, value in attributes.items():
        object.__setattr__(duplicate, name, value)
    return duplicate


@dataclass(frozen=True, eq=False)
class Mark:
    """Whose pseudo-token a row in the host's chunks is: ``token`` of ``applied``, in the part of ``text`` that encoder ``letter`` reads."""

    applied: AppliedIdentity
    token: int
    text: "MarkedText"
    letter: str


def mark_of(token) -> Mark | None:
    """The mark of a token in the host's chunks; None for ids and for rows that are not ours."""
    return getattr(token, _MARK, None) if isinstance(token, Tensor) else None


class ForeignChunks(list):
    """Chunks in another node's own format, in which stand-in words keep the places.

    Attributes: text: what they were cut from. stand_ins: id of a word → whose which pseudo-token it stands for.
    """

    def __init__(self, chunks: Sequence, text: "MarkedText", stand_ins: Mapping[int, tuple[AppliedIdentity, int]]):
        super().__init__(chunks)
        self.text, self.stand_ins = text, stand_ins


def with_people(tokenizer, people: Sequence[AppliedIdentity]):
    """A copy of the host's tokenizer that understands the triggers of ``people``; the original is untouched."""
    rows = {one.mention: {key: row.clone() for key, row in one.faded.tokens.items()} for one in people}
    duplicate = subclassed(tokenizer, _OuterTokenizer, _idea_people=tuple(people), _idea_rows=rows)
    served = {key: {embedding_name(one): rows[one.mention][key] for one in people if key in rows[one.mention]} for key in inner_keys(tokenizer, people)}
    for key, names in served.items():
        setattr(duplicate, key, subclassed(getattr(tokenizer, key), _InnerTokenizer, _idea_served=names))
    return duplicate


def inner_keys(tokenizer, people: Sequence[AppliedIdentity]) -> list[str]:
    """The inner tokenizers (``clip_l`` …) of the encoders for which these people have rows."""
    wanted = {key for one in people for key in one.identity.tokens}
    return [name for name, inner in vars(tokenizer).items() if name in wanted and hasattr(inner, "tokenize_with_weights")]


def embedding_name(applied: AppliedIdentity) -> str:
    """The embedding name of an identity: never a number, for the host would read it as a weight, and never a file."""
    return f"__idea_{applied.identity.trigger.encode().hex()}__"


class _InnerTokenizer:
    """Mixed into a host ``SDTokenizer``: serves the rows behind the names."""

    def _try_get_embedding(self, embedding_name: str, *args, **kwargs):
        # Whatever the host answers for a name it does not know is what it expects for one that it does, with the rows in the first place.
        rows = self._idea_served.get(embedding_name.strip().partition(" ")[0])
        if rows is None:
            return super()._try_get_embedding(embedding_name, *args, **kwargs)
        directory = self.embedding_directory
        try:
            self.embedding_directory = []  # no folder has such a file
            return (rows, *super()._try_get_embedding(embedding_name, *args, **kwargs)[1:])
        finally:
            self.embedding_directory = directory


class _OuterTokenizer:
    """Mixed into the tokenizer that a CLIP holds: every text node comes through here."""

    def tokenize_with_weights(self, text, *args: Any, **kwargs: Any):
        chunks = MarkedText(self, super().tokenize_with_weights, text, args, kwargs).chunks()
        # Nodes append to what they get, and the text remembers its own.
        return {letter: copy.copy(part) for letter, part in chunks.items()} if isinstance(chunks, dict) else chunks


class MarkedText:
    """A text as the host cuts it, with its people as rows or as plain words."""

    def __init__(self, tokenizer, plain: Callable, text: str | Sequence[str], args: tuple, kwargs: Mapping):
        """Args: plain: the host's own method. text: or several, as some nodes have it."""
        self._tokenizer, self._plain, self._text, self._more = tokenizer, plain, text, (args, kwargs)
        self._people: tuple[AppliedIdentity, ...] = tokenizer._idea_people
        self._rows: Mapping[str, Mapping[str, Tensor]] = tokenizer._idea_rows
        self._read: dict[frozenset[str], Any] = {}

    def chunks(self, absent: frozenset[str] = frozenset()):
        """Encoder letter → chunks of (token or row, weight, …), with the mentions ``absent`` as plain words."""
        if absent not in self._read:
            self._read[absent] = self._tokenized(absent)
        return self._read[absent]

    def rows(self, applied: AppliedIdentity, letter: str) -> Tensor:
        """(n, w): the pseudo-tokens of a person as encoder ``letter`` reads them."""
        return self._rows[applied.mention][f"clip_{letter}"]

    def _tokenized(self, absent: frozenset[str]):
        present = {one.identity.trigger: one for one in self._people if one.mention not in absent}
        pattern = trigger_pattern(tuple(present)) if present else None
        mentioned = {found for text in self._texts() for found in pattern.findall(text)} if pattern is not None else set()
        if not mentioned:
            return self._call(self._text)
        people = [present[trigger] for trigger in mentioned]
        try:
            with _embeddings_are_read(self._inner()):
                chunks = self._call(self._rewritten(pattern, lambda one: f"{self._identifier()}{embedding_name(present[one])}"))
            marked = self._with_marks(chunks, people)
        except (TypeError, ValueError, AttributeError, KeyError):  # a tokenizer that reads embeddings in a way of its own
            marked = None
        if marked is not None:
            return marked
        words = _stand_in_words(self._inner(), " ".join(self._texts()), people)
        return self._with_stand_ins(self._call(self._rewritten(pattern, lambda one: " ".join(words[present[one].mention]))), people, words)

    def _texts(self) -> Sequence[str]:
        texts = [self._text] if isinstance(self._text, str) else self._text
        return [text for text in texts if isinstance(text, str)]

    def _rewritten(self, pattern, word: Callable[[str], str]):
        def one(text):
            return pattern.sub(lambda found: f" {word(found[0])} ", text) if isinstance(text, str) else text

        return one(self._text) if isinstance(self._text, str) else [one(text) for text in self._text]

    def _call(self, text):
        args, kwargs = self._more
        return self._plain(text, *args, **kwargs)

    def _inner(self) -> dict[str, Any]:
        return {key: getattr(self._tokenizer, key) for key in inner_keys(self._tokenizer, self._people)}

    def _identifier(self) -> str:
        return next(iter(self._inner().values())).embedding_identifier

    def _with_marks(self, chunks, people: Sequence[AppliedIdentity]):
        """The chunks with marks on every row that was served; None if somebody's rows are missing."""
        if not isinstance(chunks, dict) or not all(_is_public(part) for part in chunks.values()):
            return None
        made = {}
        for letter, part in chunks.items():
            own = {one.mention: one for one in people if f"clip_{letter}" in self._rows[one.mention]}
            found: set[tuple[str, int]] = set()

            def marked(entry, letter=letter, own=own, found=found):
                served = self._served(entry[0], letter, own.values())
                if served is None:
                    return entry
                found.add((served[0].mention, served[1]))
                return (self._row(*served, letter), *entry[1:])

            made[letter] = [[marked(entry) for entry in chunk] for chunk in part]
            if found != {(mention, token) for mention, one in own.items() for token in range(one.identity.token_count)}:
                return None
        return made

    def _served(self, token, letter: str, people) -> tuple[AppliedIdentity, int] | None:
        """Whose which row a token is: a view of the very memory that was served, so people with equal numbers stay apart."""
        if not isinstance(token, Tensor) or token.ndim != 1:
            return None
        for one in people:
            rows = self.rows(one, letter)
            if token.untyped_storage().data_ptr() == rows.untyped_storage().data_ptr():
                return one, (token.storage_offset() - rows.storage_offset()) // rows.stride(0)
        return None

    def _row(self, applied: AppliedIdentity, token: int, letter: str) -> Tensor:
        row = self.rows(applied, letter)[token]
        setattr(row, _MARK, Mark(applied, token, self, letter))
        return row

    def _with_stand_ins(self, chunks, people: Sequence[AppliedIdentity], words: Mapping[str, Sequence[str]]):
        """The chunks with rows where the stand-in words are; in a foreign format they stay until the text encoder reads them."""
        if not isinstance(chunks, dict):
            return chunks
        made = {}
        for letter, part in chunks.items():
            inner = getattr(self._tokenizer, f"clip_{letter}", None)
            if inner is None:
                made[letter] = part
                continue
            ids = {_word_id(inner, word): (one, token) for one in people for token, word in enumerate(words[one.mention])}
            if _is_public(part):
                made[letter] = [[(self._row(*ids[entry[0]], letter), *entry[1:]) if is_id(entry[0]) and entry[0] in ids else entry for entry in chunk]
                                for chunk in part]
            else:
                made[letter] = ForeignChunks(part, self, ids)
        return made


def is_id(token) -> bool:
    """Whether a token in the host's chunks is a number of the vocabulary."""
    return isinstance(token, int) and not isinstance(token, bool)


def _is_public(chunks) -> bool:
    """Whether these are the host's chunks: lists of (token, weight, …)."""
    return isinstance(chunks, list) and all(
        isinstance(chunk, list) and all(isinstance(entry, tuple) and len(entry) >= 2 and isinstance(entry[1], (int, float)) for entry in chunk)
        for chunk in chunks
    )


@contextmanager
def _embeddings_are_read(inner: Mapping[str, Any]) -> Iterator[None]:
    """Without a folder for embeddings the host does not look for them at all."""
    folders = {key: tokenizer.embedding_directory for key, tokenizer in inner.items()}
    try:
        for key, tokenizer in inner.items():
            tokenizer.embedding_directory = [] if folders[key] is None else folders[key]
        yield
    finally:
        for key, tokenizer in inner.items():
            tokenizer.embedding_directory = folders[key]


def _word_id(inner, word: str) -> int:
    ids = list(inner.tokenizer(word)["input_ids"])
    return ids[1] if len(ids) == 3 else -1


def _stand_in_words(inner: Mapping[str, Any], text: str, people: Sequence[AppliedIdentity]) -> dict[str, list[str]]:
    """Mention → n words that the text does not use, each a single token of every encoder: late merges of the vocabulary."""
    vocabulary = next(iter(inner.values())).tokenizer.get_vocab()
    spelled = text.lower()
    words = (word.removesuffix("</w>") for word, _ in sorted(vocabulary.items(), key=lambda item: -item[1]) if word.endswith("</w>"))
    free = (word for word in words if len(word) >= 6 and word.isascii() and word.isalpha() and word.islower() and word not in spelled
            and all(_word_id(one, word) >= 0 for one in inner.values()))
    return {one.mention: [next(free) for _ in range(one.identity.token_count)] for one in people}
