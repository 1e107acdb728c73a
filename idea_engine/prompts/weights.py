"""The weights in a prompt, such as (word:1.2), in the hosts' grammar."""
from __future__ import annotations

import re

_ESCAPED = {"\\(": "\0", "\\)": "\1"}
_GAIN = 1.1  # of a bare (word)


def weighted_parts(prompt: str) -> list[tuple[str, float]]:
    """'a (red:1.2) ((hat))' → [('a ', 1), ('red', 1.2), (' ', 1), ('hat', 1.21)].

    The hosts' grammar: bare parentheses multiply by 1.1, a number at the end of a group replaces that, ``\\(`` is a parenthesis.
    A parenthesis without its partner is text.
    """
    for mark, stand_in in _ESCAPED.items():
        prompt = prompt.replace(mark, stand_in)
    return [(text.replace("\0", "(").replace("\1", ")"), weight) for text, weight in _parts(prompt, 1.0) if text]


def _parts(text: str, weight: float) -> list[tuple[str, float]]:
    parts, plain, at = [], "", 0
    while at < len(text):
        close = _closing(text, at) if text[at] == "(" else None
        if close is None:
            plain += text[at]
            at += 1
            continue
        parts.append((plain, weight))
        inside, own = text[at + 1:close], weight * _GAIN
        said = re.fullmatch(r"(.+):\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*", inside, re.DOTALL)
        if said:
            inside, own = said[1], float(said[2])
        parts += _parts(inside, own)
        plain, at = "", close + 1
    return [*parts, (plain, weight)]


def _closing(text: str, opened: int) -> int | None:
    depth = 0
    for at in range(opened, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if depth == 0:
            return at
    return None
