"""The prompts of a queued graph: which nodes read a text with which CLIP, which samplers draw it with which MODEL."""
from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Collection, Iterable, Mapping

from .graph_wiring import NO_TEXT, Graph, Socket, Types, Wiring

ATTENTION_MAP = "IDEA_AttentionMap"  # the one node of ours that reads a prompt with a CLIP
# <anna>; not <lora:name:0.8>, </tag>, <|end|>, <3 or embedding:<cat-toy>.
BRACKETED = re.compile(r"(?<!embedding:)<[^<>\s:|/=]*[^\W\d_][^<>\s:|/=]*>")
_WILDCARD = re.compile(r"__[^\s_][^\s]*?__")  # other packs put a text of their own in its place
_ON_THE_WAY = {"MODEL", "CLIP", "CONDITIONING"}  # a node that gives only these draws nothing yet


def mentions_in(graph: Graph, node_id: str, trigger: str, types: Types | None = None) -> list[str]:
    """Ids of the text nodes before ``node_id``, along whatever links, that mention ``trigger``, in the graph's order.

    Args:
        types: with them a node that only hands a text on (a string primitive) stands for the text nodes that read it.
    """
    wiring = Wiring(graph, types or {})
    before = wiring.before([node_id])
    todo = [id for id in before if not wiring.is_ours(id) and mentions(wiring.strings[id], trigger)]
    seen, found = set(), set()
    while todo:
        one = todo.pop()
        if one in seen:
            continue
        seen.add(one)
        readers = [id for id in wiring.readers[one] if id in before]
        if readers and set(wiring.outputs(one)) == {"STRING"}:
            todo += readers
        elif one != node_id:
            found.add(one)
    return [id for id in graph if id in found]


def mentions(texts: Iterable[str], trigger: str) -> bool:
    """Whether one of the texts has the trigger, as a prompt would be read."""
    pattern = _pattern(trigger)
    return any(pattern.search(text) for text in texts)


@lru_cache(maxsize=64)
def _pattern(trigger: str) -> re.Pattern[str]:
    from ..idea_engine.prompts.trigger import trigger_pattern

    return trigger_pattern([trigger])


@dataclass(frozen=True)
class Text:
    """A node that reads text with a CLIP.

    Attributes: said: every text that reaches it; plain: those that arrive as they were typed; certain: whether that
    is all; clip: the way its CLIP has come; people: the Apply nodes on it, the nearest first.
    """

    id: str
    said: tuple[str, ...]
    plain: tuple[str, ...]
    certain: bool
    clip: Mapping[Socket, None]
    people: tuple[str, ...]

    @property
    def clip_from(self) -> str:
        return next(iter(self.clip))[0]


@dataclass(frozen=True)
class Sampler:
    """A node that draws with a MODEL and conditionings.

    Attributes: model: the way the MODEL has come; people: the Apply nodes on it; texts: input → text nodes behind it.
    """

    id: str
    model: Mapping[Socket, None]
    people: tuple[str, ...]
    texts: Mapping[str, frozenset[str]]

    @property
    def model_from(self) -> str:
        return next(iter(self.model))[0]

    @cached_property
    def all_texts(self) -> frozenset[str]:
        return frozenset().union(*self.texts.values())


class Prompts:
    """Texts and samplers of a graph; ``people``: its Apply nodes."""

    def __init__(self, wiring: Wiring, people: Collection[str]):
        self.wiring, self.people = wiring, people
        self._said: dict[tuple[str, str], bool] = {}

    def says(self, text: Text, trigger: str) -> bool:
        """Whether a text mentions somebody; asked for every person about every text, so the answers are kept."""
        key = (text.id, trigger)
        if key not in self._said:
            self._said[key] = mentions(text.said, trigger)
        return self._said[key]

    @cached_property
    def texts(self) -> dict[str, Text]:
        found = {}
        for id in self.wiring.graph:
            clips = self.wiring.sources(id, "CLIP")
            saves = self.wiring.kind(id) in self.wiring.types and not self.wiring.outputs(id)  # its text is a file name
            if not clips or saves or (self.wiring.is_ours(id) and self.wiring.kind(id) != ATTENTION_MAP):
                continue
            said, plain, certain = self._read(id)
            if id in self.wiring.takes_text or said or not certain:
                way = self.wiring.way(clips, "CLIP")
                found[id] = Text(id, said, plain, certain, way, self._people_on(way))
        return found

    def _read(self, id: str) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
        """Every text that reaches a node, those that arrive as they were typed, and whether that is all."""
        own = self.wiring.strings[id]
        said, plain, certain = list(own), list(own), not any(map(_WILDCARD.search, own))
        for socket in self.wiring.links[id].values():
            source, kinds = socket[0], self.wiring.kinds(socket)
            if (kinds and kinds <= NO_TEXT) or (self.wiring.is_ours(source) and "STRING" not in kinds):
                continue
            typed = self.wiring.strings[source]
            if len(self.wiring.inputs(source)) == 1 and typed:  # a primitive
                said, plain, certain = said + typed, plain + typed, certain and not any(map(_WILDCARD.search, typed))
                continue
            certain = False  # what a node makes of its texts is known when it has run
            for before in self.wiring.before([source]):
                if not self.wiring.is_ours(before):
                    said += self.wiring.strings[before]
        return tuple(said), tuple(plain), certain

    @cached_property
    def samplers(self) -> list[Sampler]:
        found = []
        for id in self.wiring.graph:
            models = self.wiring.sources(id, "MODEL")
            if not models or self.wiring.is_ours(id) or not set(self.wiring.outputs(id)) - _ON_THE_WAY:
                continue
            texts = {}
            for name, socket in self.wiring.links[id].items():
                if "CONDITIONING" in self.wiring.kinds(socket):
                    texts[name] = frozenset(
                        node for node, _ in self.wiring.way([socket], "CONDITIONING") if node in self.texts
                    )
            if texts:
                way = self.wiring.way(models, "MODEL")
                found.append(Sampler(id, way, self._people_on(way), texts))
        return found

    def _people_on(self, way: Iterable[Socket]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(node for node, _ in way if node in self.people))
