"""Who is mentioned where in a queued graph, and the commonest mistakes around Apply ID Adapter."""
from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Callable, Mapping, Sequence

from .graph_prompts import BRACKETED, Prompts, Sampler, Text, mentions, mentions_in
from .graph_wiring import Graph, Socket, Types, Wiring, text_title

__all__ = ["APPLY", "Notice", "check_graph", "mentions", "mentions_in", "text_title"]

APPLY = ("IDEA_ApplyIDAdapter", "IDEA_ApplyIDAdapterAdvanced")
LOAD, ENHANCE = "IDEA_LoadIdentity", "IDEA_IDEnhancer"
_STRENGTHS = ("strength", "token_strength", "adapter_strength", "key_value_strength")
_NAMED_AT_MOST = 3


@dataclass(frozen=True)
class Notice:
    """A sentence for the node ``node_id``: what was found, and which word or link mends it."""

    node_id: str
    text: str


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
    from ..idea_engine.identity.operations import DEFAULT_TRIGGER

    return DEFAULT_TRIGGER


def _is_off(node: Mapping[str, Any]) -> bool:
    """Whether the artist has switched an Apply node off."""
    inputs = node.get("inputs") or {}
    strengths = [inputs[name] for name in _STRENGTHS if name in inputs]
    start, end = inputs.get("start_at", 0.0), inputs.get("end_at", 1.0)
    numbers = isinstance(start, (int, float)) and isinstance(end, (int, float))
    return (bool(strengths) and all(value == 0 for value in strengths)) or (numbers and start >= end)


class _Check:
    """The questions about one graph; ``people``: Apply node → trigger."""

    def __init__(self, wiring: Wiring, people: Mapping[str, _Trigger]):
        self.wiring, self.people = wiring, people
        self.prompts = Prompts(wiring, people)

    def of(self, apply: str) -> list[str]:
        """The sentences about one Apply node, each mistake once."""
        trigger = self.people[apply].word
        if not self._is_drawn(apply):
            return []
        behind = [text for text in self.prompts.texts.values() if apply in text.people]
        if trigger is None:
            return self._of_unknown(apply, behind)
        mentioned = [text for text in behind if self.prompts.says(text, trigger)]
        astray = self._astray(apply, trigger, bool(mentioned))
        found = self._on_another_clip(apply, astray, trigger)
        strange = self.strange[apply]
        if not mentioned and not astray and not strange:
            found += self._not_mentioned(apply, trigger, behind)
        found += strange
        return found + self._on_another_model(self._without_model(apply, trigger, mentioned), trigger)

    def _is_drawn(self, apply: str) -> bool:
        """Whether a sampler has the MODEL that goes into this node, or comes out of it."""
        given = self._given(apply, "MODEL")
        return any(apply in sampler.people or not given.isdisjoint(sampler.model) for sampler in self.prompts.samplers)

    def _given(self, apply: str, kind: str) -> frozenset[Socket]:
        """The way that the MODEL or CLIP of an Apply node has come."""
        return frozenset(self.wiring.way(self.wiring.sources(apply, kind), kind))

    def _astray(self, apply: str, trigger: str, mentioned: bool) -> list[Text]:
        """Texts that mention the person and read with the CLIP that goes into this node, past it.

        Once another text is right, one that is drawn without this node's MODEL too is meant so: a comparison.
        """
        given = self._given(apply, "CLIP")
        ahead = self.wiring.before([apply])
        drawn = frozenset().union(*(sampler.all_texts for sampler in self.prompts.samplers if apply in sampler.people))
        return [
            text
            for text in self.prompts.texts.values()
            if self.prompts.says(text, trigger)
            and not any(self.people[one].may_be(trigger) for one in text.people)
            and text.id not in ahead
            and not given.isdisjoint(text.clip)
            and not self.wiring.is_ours(text.id)
            and (not mentioned or text.id in drawn)
        ]

    def _without_model(self, apply: str, trigger: str, mentioned: Sequence[Text]) -> list[Sampler]:
        """Samplers that draw a text which mentions the person, with the MODEL that goes into this node, past it."""
        given = self._given(apply, "MODEL")
        ahead = self.wiring.before([apply])
        ids = {text.id for text in mentioned}
        return [
            sampler
            for sampler in self.prompts.samplers
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
        almost: dict[tuple[str, str, str], list[str]] = {}  # Apply node, word, trigger that is meant → texts
        nobody: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}  # Apply node, word, triggers there are → texts
        for text in self.prompts.texts.values():
            known = {self.people[one].word: one for one in text.people}
            if not known or None in known:
                continue
            elsewhere = [one for one in self.people.values() if one.word not in known]
            words = dict.fromkeys(word for said in text.plain for word in BRACKETED.findall(said))
            for word in words:
                if (
                    word in known
                    or any(mentions([word], one) for one in known)
                    or any(one.may_be(word) for one in elsewhere)
                ):
                    continue  # of another chain: said there, as a text on another CLIP
                meant = next((trigger for trigger in known if _core(trigger) == _core(word)), None)
                if meant is not None:
                    almost.setdefault((known[meant], word, meant), []).append(text.id)
                elif f"</{word[1:]}" not in " ".join(text.said):  # no tag
                    nobody.setdefault((text.people[0], word, tuple(known)), []).append(text.id)
        found: dict[str, list[str]] = {id: [] for id in self.people}
        for (apply, word, meant), ids in almost.items():
            found[apply].append(self._almost(ids, word, meant))
        for (apply, word, triggers), ids in nobody.items():
            found[apply].append(self._nobody(ids, word, triggers))
        return found

    def _not_mentioned(self, apply: str, trigger: str, behind: Sequence[Text]) -> list[str]:
        """Why no text behind this node mentions its person, as far as the graph tells."""
        almost = re.compile(rf"(?<!\w)<?\s*{re.escape(_core(trigger))}(?!\w)\s*>?", re.IGNORECASE)
        for text in behind:
            hit = next(filter(None, map(almost.search, text.plain)), None)
            if hit is not None:
                return [self._almost([text.id], hit[0].strip(), trigger)]
        if not behind and not self._ends(apply):
            return []
        others = {self.people[one].word for text in behind for one in text.people if one != apply}
        if not all(text.certain for text in behind) or None in others:
            return []
        if any(self.prompts.says(text, word) for word in others for text in behind):
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

    def _of_unknown(self, apply: str, behind: Sequence[Text]) -> list[str]:
        """For a trigger that only the identity's file knows: a text without any word in angle brackets has none."""
        if not self.people[apply].bracketed or not all(text.certain for text in behind):
            return []
        if any(BRACKETED.search(said) for text in behind for said in text.said) or (
            not behind and not self._ends(apply)
        ):
            return []
        known = [one.word for one in self.people.values() if one.word is not None]
        if any(self.prompts.says(text, word) for word in known for text in behind):
            return []  # this picture is of another
        given = self._given(apply, "CLIP")
        for text in self.prompts.texts.values():
            word = next((word for said in text.plain for word in BRACKETED.findall(said)), None)
            if word and not text.people and not given.isdisjoint(text.clip):
                return self._on_another_clip(apply, [text], word)
        return [self._nowhere(None, behind)]

    # The sentences: what was found, and which word or link mends it.

    def _title(self, id: str) -> str:
        return text_title(self.wiring.graph, id)

    def _titles(self, ids: Sequence[str], verb: str) -> str:
        """'Scene 1 (#5) says', 'Scene 1 (#5), Scene 2 (#6) say': what some nodes do."""
        more = len(ids) - _NAMED_AT_MOST
        names = ", ".join(map(self._title, ids[:_NAMED_AT_MOST])) + (f" and {more} more" if more > 0 else "")
        return f"{names} {verb}{'s' if len(ids) == 1 else ''}"

    def _on_another_clip(self, apply: str, texts: Sequence[Text], trigger: str) -> list[str]:
        ahead = self.wiring.before([apply])
        groups: dict[tuple[str, str], list[str]] = {}
        for text in texts:
            beside = [one for one in text.people if one not in ahead]
            groups.setdefault((text.clip_from, beside[-1] if beside else ""), []).append(text.id)
        found = []
        for (source, beside), ids in groups.items():
            one = len(ids) == 1
            mend = f"Connect this node's clip with {'that text node' if one else 'those text nodes'}."
            if beside:
                mend = f"Put the two in a row: this node's model and clip into {self._title(beside)}."
            found.append(
                f"{self._titles(ids, 'mention')} {trigger}, but {'its' if one else 'their'} clip comes from "
                f"{self._title(source)}, which does not know {trigger}. {mend}"
            )
        return found

    def _on_another_model(self, samplers: Sequence[Sampler], trigger: str) -> list[str]:
        groups: dict[str, list[str]] = {}
        for sampler in samplers:
            groups.setdefault(sampler.model_from, []).append(sampler.id)
        return [
            f"{self._titles(ids, 'draw')} a prompt that mentions {trigger}, but {'its' if len(ids) == 1 else 'their'} "
            f"model comes from {self._title(source)}, so only a part of the person acts. "
            f"Connect this node's model with {'that sampler' if len(ids) == 1 else 'those samplers'}."
            for source, ids in groups.items()
        ]

    def _almost(self, ids: Sequence[str], found: str, trigger: str) -> str:
        return (
            f"{self._titles(ids, 'say')} {found}, but the person answers to {trigger}. "
            f"Write {trigger}, brackets and capitals included."
        )

    def _nobody(self, ids: Sequence[str], word: str, known: Sequence[str]) -> str:
        here = ", ".join(known)
        before = "before it" if len(ids) == 1 else "before them"
        return (
            f"{self._titles(ids, 'say')} {word}, but nobody {before} answers to that; here it is {here}. "
            f"Write {here}, or put the Apply ID Adapter of {word} before the text."
        )

    def _nowhere(self, trigger: str | None, behind: Sequence[Text]) -> str:
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

    def _named(self, behind: Sequence[Text]) -> list[str]:
        """The texts to write a person into: not what samplers are to avoid, and text nodes before other readers."""
        positive = frozenset().union(
            *(
                ids
                for sampler in self.prompts.samplers
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
