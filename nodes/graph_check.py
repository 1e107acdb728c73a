"""Who is mentioned where in a queued graph, and the commonest mistakes around Apply ID Adapter."""
from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Callable, Iterable, Mapping, Sequence

from .graph_wiring import NO_TEXT, Graph, Socket, Types, Wiring, text_title

APPLY = ("IDEA_ApplyIDAdapter", "IDEA_ApplyIDAdapterAdvanced")
ATTENTION_MAP = "IDEA_AttentionMap"  # the one node of ours that reads a prompt with a CLIP
LOAD, ENHANCE = "IDEA_LoadIdentity", "IDEA_IDEnhancer"
_STRENGTHS = ("strength", "token_strength", "adapter_strength", "key_value_strength")
# <anna>; not <lora:name:0.8>, </tag>, <|end|>, <3 or embedding:<cat-toy>.
_BRACKETED = re.compile(r"(?<!embedding:)<[^<>\s:|/=]*[^\W\d_][^<>\s:|/=]*>")
_WILDCARD = re.compile(r"__[^\s_][^\s]*?__")  # other packs put a text of their own in its place
_ON_THE_WAY = {"MODEL", "CLIP", "CONDITIONING"}  # a node that gives only these draws nothing yet
_NAMED_AT_MOST = 3


@dataclass(frozen=True)
class Notice:
    """A sentence for the node ``node_id``: what was found, and which word or link mends it."""

    node_id: str
    text: str


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


def check_graph(
    graph: Graph, types: Types, saved_trigger: Callable[[str], str | None] = lambda name: None
) -> list[Notice]:
    """What is wrong around the Apply ID Adapter nodes of a graph; nothing where the graph alone is not certain.

    Args:
        types: of the nodes of this host; a node that is not among them may be anything.
        saved_trigger: file of Load Identity → the trigger it was saved with, or None where that cannot be known.
    """
    wiring = Wiring(graph, types)
    people = {id: _trigger(wiring, id, saved_trigger) for id in graph if wiring.kind(id) in APPLY}
    if not people:
        return []
    check = _Check(wiring, people)
    return [Notice(id, text) for id in people if not _is_off(graph[id]) for text in check.of(id)]


@lru_cache(maxsize=64)
def _pattern(trigger: str) -> re.Pattern[str]:
    from ..idea_engine.tokens import trigger_pattern

    return trigger_pattern([trigger])


@dataclass(frozen=True)
class _Trigger:
    """Attributes: word: None where it is not known; bracketed: whether it then surely is a word in angle brackets."""

    word: str | None = None
    bracketed: bool = False

    def may_be(self, word: str) -> bool:
        return self.word is None or self.word == word


def _trigger(wiring: "Wiring", apply: str, saved_trigger: Callable[[str], str | None]) -> _Trigger:
    """What the person of an Apply node answers to: its own word, else that of where the identity comes from."""
    node: str | None = apply
    seen = set()
    while node is not None and node not in seen:
        seen.add(node)
        inputs = wiring.inputs(node)
        asked = inputs.get("trigger", "")
        if not isinstance(asked, str):
            return _Trigger()
        if asked:
            return _Trigger(asked)
        if wiring.kind(node) == ENHANCE:
            return _Trigger(_untrained())
        if wiring.kind(node) == LOAD:
            name = inputs.get("identity")
            if not isinstance(name, str):
                return _Trigger()
            word = saved_trigger(name)
            return _Trigger(word, bracketed=word is None)
        if not wiring.is_ours(node):
            return _Trigger()
        source = wiring.links[node].get("identity")
        node = source[0] if source is not None else None
    return _Trigger()


def _untrained() -> str:
    from ..idea_engine.identity import DEFAULT_TRIGGER

    return DEFAULT_TRIGGER


def _is_off(node: Mapping[str, Any]) -> bool:
    """Whether the artist has switched an Apply node off."""
    inputs = node.get("inputs") or {}
    strengths = [inputs[name] for name in _STRENGTHS if name in inputs]
    start, end = inputs.get("start_at", 0.0), inputs.get("end_at", 1.0)
    numbers = isinstance(start, (int, float)) and isinstance(end, (int, float))
    return (bool(strengths) and all(value == 0 for value in strengths)) or (numbers and start >= end)


@dataclass(frozen=True)
class _Text:
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
class _Sampler:
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


class _Check:
    """The questions about one graph; ``people``: Apply node → trigger."""

    def __init__(self, wiring: Wiring, people: Mapping[str, _Trigger]):
        self.wiring, self.people = wiring, people
        self._found: dict[tuple[str, str], bool] = {}

    def _says(self, text: _Text, trigger: str) -> bool:
        """Whether a text mentions somebody; asked for every person about every text, so the answers are kept."""
        key = (text.id, trigger)
        if key not in self._found:
            self._found[key] = mentions(text.said, trigger)
        return self._found[key]

    @cached_property
    def texts(self) -> dict[str, _Text]:
        found = {}
        for id in self.wiring.graph:
            clips = self.wiring.sources(id, "CLIP")
            saves = self.wiring.kind(id) in self.wiring.types and not self.wiring.outputs(id)  # its text is a file's name
            if not clips or saves or (self.wiring.is_ours(id) and self.wiring.kind(id) != ATTENTION_MAP):
                continue
            said, plain, certain = self._read(id)
            if id in self.wiring.takes_text or said or not certain:
                way = self.wiring.way(clips, "CLIP")
                found[id] = _Text(id, said, plain, certain, way, self._people_on(way))
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
    def samplers(self) -> list[_Sampler]:
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
                found.append(_Sampler(id, way, self._people_on(way), texts))
        return found

    def _people_on(self, way: Iterable[Socket]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(node for node, _ in way if node in self.people))

    def of(self, apply: str) -> list[str]:
        """The sentences about one Apply node, each mistake once."""
        trigger = self.people[apply].word
        if not self._is_drawn(apply):
            return []
        behind = [text for text in self.texts.values() if apply in text.people]
        if trigger is None:
            return self._of_unknown(apply, behind)
        mentioned = [text for text in behind if self._says(text, trigger)]
        astray = self._astray(apply, trigger, bool(mentioned))
        found = [self._on_another_clip(apply, text, trigger) for text in astray]
        strange = self.strange[apply]
        if not mentioned and not astray and not strange:
            found += self._not_mentioned(apply, trigger, behind)
        found += strange
        found += [
            self._on_another_model(sampler, trigger) for sampler in self._without_model(apply, trigger, mentioned)
        ]
        return found

    def _is_drawn(self, apply: str) -> bool:
        """Whether a sampler has the MODEL that goes into this node, or comes out of it."""
        given = self._given(apply, "MODEL")
        return any(apply in sampler.people or not given.isdisjoint(sampler.model) for sampler in self.samplers)

    def _given(self, apply: str, kind: str) -> frozenset[Socket]:
        """The way that the MODEL or CLIP of an Apply node has come."""
        return frozenset(self.wiring.way(self.wiring.sources(apply, kind), kind))

    def _astray(self, apply: str, trigger: str, mentioned: bool) -> list[_Text]:
        """Texts that mention the person and read with the CLIP that goes into this node, past it.

        Once another text is right, one that is drawn without this node's MODEL too is meant so: a comparison.
        """
        given = self._given(apply, "CLIP")
        ahead = self.wiring.before([apply])
        drawn = frozenset().union(*(sampler.all_texts for sampler in self.samplers if apply in sampler.people))
        return [
            text
            for text in self.texts.values()
            if self._says(text, trigger)
            and not any(self.people[one].may_be(trigger) for one in text.people)
            and text.id not in ahead
            and not given.isdisjoint(text.clip)
            and not self.wiring.is_ours(text.id)
            and (not mentioned or text.id in drawn)
        ]

    def _without_model(self, apply: str, trigger: str, mentioned: Sequence[_Text]) -> list[_Sampler]:
        """Samplers that draw a text which mentions the person, with the MODEL that goes into this node, past it."""
        given = self._given(apply, "MODEL")
        ahead = self.wiring.before([apply])
        ids = {text.id for text in mentioned}
        return [
            sampler
            for sampler in self.samplers
            if not ids.isdisjoint(sampler.all_texts)
            and not any(self.people[one].may_be(trigger) for one in sampler.people)
            and sampler.id not in ahead
            and not given.isdisjoint(sampler.model)
        ]

    @cached_property
    def strange(self) -> dict[str, list[str]]:
        """Apply node → sentences about words in angle brackets that nobody answers to.

        They are said on the node of the person who is meant, else on the last one before the text.
        """
        found: dict[str, list[str]] = {id: [] for id in self.people}
        for text in self.texts.values():
            known = {self.people[one].word: one for one in text.people}
            if not known or None in known:
                continue
            elsewhere = [one for one in self.people.values() if one.word not in known]
            words = dict.fromkeys(word for said in text.plain for word in _BRACKETED.findall(said))
            for word in words:
                if (
                    word in known
                    or any(mentions([word], one) for one in known)
                    or any(one.may_be(word) for one in elsewhere)
                ):
                    continue  # of another chain: said there, as a text on another CLIP
                meant = next((trigger for trigger in known if _core(trigger) == _core(word)), None)
                if meant is not None:
                    found[known[meant]].append(self._almost(text, word, meant))
                elif f"</{word[1:]}" not in " ".join(text.said):  # no tag
                    found[text.people[0]].append(self._nobody(text, word, list(known)))
        return found

    def _not_mentioned(self, apply: str, trigger: str, behind: Sequence[_Text]) -> list[str]:
        """Why no text behind this node mentions its person, as far as the graph tells."""
        almost = re.compile(rf"(?<!\w)<?\s*{re.escape(_core(trigger))}(?!\w)\s*>?", re.IGNORECASE)
        for text in behind:
            hit = next(filter(None, map(almost.search, text.plain)), None)
            if hit is not None:
                return [self._almost(text, hit[0].strip(), trigger)]
        if not behind and not self._ends(apply):
            return []
        others = {self.people[one].word for text in behind for one in text.people if one != apply}
        if not all(text.certain for text in behind) or None in others:
            return []
        if any(self._says(text, word) for word in others for text in behind):
            return []  # several people stand ready; this picture is of another
        return [self._nowhere(trigger, behind)]

    def _ends(self, apply: str) -> bool:
        """Whether the CLIP that a node gives surely reaches nobody who reads text, and no further Apply node."""
        todo, seen = [apply], set()
        while todo:
            one = todo.pop()
            seen.add(one)
            clips = {(one, number) for number, kind in enumerate(self.wiring.outputs(one)) if kind == "CLIP"}
            for reader in self.wiring.readers[one]:
                if reader in seen or not clips & set(self.wiring.links[reader].values()):
                    continue
                outputs = set(self.wiring.outputs(reader))
                if reader in self.people or not outputs or not outputs <= {"MODEL", "CLIP"}:
                    return False
                todo.append(reader)
        return True

    def _of_unknown(self, apply: str, behind: Sequence[_Text]) -> list[str]:
        """For a trigger that only the identity's file knows: a text without any word in angle brackets has none."""
        if not self.people[apply].bracketed or not all(text.certain for text in behind):
            return []
        if any(_BRACKETED.search(said) for text in behind for said in text.said) or (
            not behind and not self._ends(apply)
        ):
            return []
        given = self._given(apply, "CLIP")
        for text in self.texts.values():
            word = next((word for said in text.plain for word in _BRACKETED.findall(said)), None)
            if word and not text.people and not given.isdisjoint(text.clip):
                return [self._on_another_clip(apply, text, word)]
        return [self._nowhere(None, behind)]

    # The sentences: what was found, and which word or link mends it.

    def _title(self, id: str) -> str:
        return text_title(self.wiring.graph, id)

    def _on_another_clip(self, apply: str, text: _Text, trigger: str) -> str:
        beside = [one for one in text.people if one not in self.wiring.before([apply])]
        mend = (
            f"Put the two in a row: this node's model and clip into {self._title(beside[-1])}."
            if beside
            else "Connect this node's clip with that text node."
        )
        return (
            f"{self._title(text.id)} mentions {trigger}, but its clip comes from {self._title(text.clip_from)}, "
            f"which does not know {trigger}. {mend}"
        )

    def _on_another_model(self, sampler: _Sampler, trigger: str) -> str:
        return (
            f"{self._title(sampler.id)} draws a prompt that mentions {trigger}, but its model comes from "
            f"{self._title(sampler.model_from)}, so only a "
            "part of the person acts. Connect this node's model with that sampler."
        )

    def _almost(self, text: _Text, found: str, trigger: str) -> str:
        return (
            f"{self._title(text.id)} says {found}, but the person answers to {trigger}. "
            f"Write {trigger}, brackets and capitals included."
        )

    def _nobody(self, text: _Text, word: str, known: Sequence[str]) -> str:
        here = ", ".join(dict.fromkeys(known))
        return (
            f"{self._title(text.id)} says {word}, but nobody before it answers to that; here it is {here}. "
            f"Write {here}, or put the Apply ID Adapter of {word} before the text."
        )

    def _nowhere(self, trigger: str | None, behind: Sequence[_Text]) -> str:
        person = trigger or "the person's trigger"
        if not behind:
            return (
                f"No text node reads with this node's clip, so no prompt can mention {person}. "
                "Connect it with the clip of your text node."
            )
        ids = self._named(behind)
        first = (
            f"No prompt behind this node mentions {person}"
            if trigger
            else "No prompt behind this node has a word in angle brackets, such as <anna>"
        )
        return f"{first}, so the person does not come in. Write {person} into {' or '.join(map(self._title, ids))}."

    def _named(self, behind: Sequence[_Text]) -> list[str]:
        """The texts to write a person into: not what samplers are to avoid, and text nodes before other readers."""
        positive = frozenset().union(
            *(
                ids
                for sampler in self.samplers
                for name, ids in sampler.texts.items()
                if not name.lower().startswith("neg")
            )
        )
        ids = [text.id for text in behind]
        for better in (positive, {id for id in ids if "CONDITIONING" in self.wiring.outputs(id)}):
            ids = [id for id in ids if id in better] or ids
        return ids[:_NAMED_AT_MOST]


def _core(trigger: str) -> str:
    """'anna' of <Anna>."""
    return trigger.strip("<>").lower()
