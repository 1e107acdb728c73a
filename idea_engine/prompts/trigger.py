"""The trigger: the word that stands for a person in a prompt, and what a prompt says besides it."""
from __future__ import annotations

import re
from typing import Callable, Sequence

from ..errors import TriggerError
from ..files.foreign_text import shown

PLACEHOLDER = "{tokens}"  # in prompt templates
# Characters that already mean something in a host's prompt: weights, escapes, wildcards, embedding names and list separators.
_RESERVED = set("(){}[]:,\\\"'|")
_MAX_TRIGGER = 64
# Thai, Lao, Burmese and Khmer; kana, Han and Hangul with all their extensions
_JOINED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1100-\u11ff\u2e80-\ud7ff\uf900-\ufaff\uff66-\uffdc\U00020000-\U0003ffff]")
_PERSON = re.compile(re.escape(PLACEHOLDER) + r"|<[^<>\s]+>|‹[^‹›\s]+›|embedding:[^\s,]+")


def check_trigger(trigger: str, known_words: Callable[[str], list[int]] | None = None) -> str:
    """Return ``trigger`` when it can stand for a person in a prompt.

    Args:
        known_words: text → token ids, where a tokenizer is at hand; a trigger that is one token already is refused.

    Raises:
        TriggerError: it is empty, has white space or characters that prompts already use, or is already a token.
    """
    mend = "Choose one word in angle brackets, such as <anna>, in the trigger field."
    if not trigger:
        raise TriggerError(f"The trigger is empty, so no prompt could mention the person. {mend}")
    if any(ch.isspace() for ch in trigger):
        raise TriggerError(f"The trigger '{shown(trigger, _MAX_TRIGGER)}' contains white space, but it must be a single word. {mend}")
    bad = sorted(set(trigger) & _RESERVED)
    if bad or not trigger.isprintable() or len(trigger) > _MAX_TRIGGER:
        found = "'" + "', '".join(bad) + "'" if bad else f"more than {_MAX_TRIGGER} or unprintable characters"
        raise TriggerError(f"The trigger '{shown(trigger, _MAX_TRIGGER)}' contains {found}, which prompts use for other things. {mend}")
    if not any(ch.isalnum() for ch in trigger):
        raise TriggerError(f"The trigger '{shown(trigger, _MAX_TRIGGER)}' has no letter or digit, so it could not be told from punctuation. {mend}")
    if trigger.isalnum() and trigger.isascii() and known_words is not None and len(known_words(trigger)) == 1:
        raise TriggerError(
            f"The trigger '{trigger}' is already a token of the text encoder, so it would lose its meaning in every other prompt. {mend}"
        )
    return trigger


def trigger_pattern(triggers: Sequence[str]) -> re.Pattern[str]:
    """Matches any of ``triggers``, the longest first, and never inside a longer word (``anna7`` does not contain ``anna``)."""

    def bounded(trigger: str) -> str:
        left = r"(?<!\w)" if _spaced(trigger[0]) else ""
        right = r"(?!\w)" if _spaced(trigger[-1]) else ""
        return left + re.escape(trigger) + right

    return re.compile("|".join(bounded(t) for t in sorted(triggers, key=len, reverse=True)))


def _spaced(letter: str) -> bool:
    """Whether words that begin or end with this letter stand apart. Chinese and Japanese leave no spaces, Korean and Thai join particles."""
    return letter.isalnum() and not _JOINED.match(letter)


def scene_of(prompt: str, triggers: Sequence[str] = ()) -> str:
    """What a prompt says besides who: for a CLIP that knows nobody, and reads weights as words.

    '(a red hat:1.3), (<anna>:1.2)'s dog' → 'a red hat, dog'. The placeholder, ``triggers``, words in angle brackets and embeddings are left
    out, and what is weighted counts as plain text.
    """
    from .weights import weighted_parts

    text = "".join(part for part, _ in weighted_parts(prompt))
    for people in (_PERSON, trigger_pattern(triggers) if triggers else None):
        text = text if people is None else re.sub(rf"(?:{people.pattern})(?:['’]s\b)?", "", text)
    parts = (" ".join(part.split()) for part in text.split(","))
    return ", ".join(part for part in parts if part)
