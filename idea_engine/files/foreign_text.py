"""Text that somebody else wrote, in a file or as its name: shown in one line, read as JSON, put into a table."""
from __future__ import annotations

import json
import unicodedata

MOST_SHOWN = 200  # characters of foreign text in any sentence
_MAX_JSON = 16 << 20  # characters
_FORMULA = ("=", "+", "-", "@")  # what makes spreadsheets compute a cell


def shown(text: object, limit: int = MOST_SHOWN) -> str:
    """Foreign text for one line of a terminal or a page: nothing in it moves the cursor, ends the line or turns the writing direction.

    Such characters appear as escapes (``\\x1b``); what is longer than ``limit`` is cut, with an ellipsis.
    """
    text = str(text)
    cut = text[:limit]
    cut = "".join(character if harmless(character) else character.encode("unicode_escape", "surrogatepass").decode("ascii") for character in cut)
    return cut if len(cut) <= limit and len(text) <= limit else cut[: limit - 1] + "…"


def parsed_json(text: str | bytes) -> object:
    """What JSON says, whatever is in it.

    Raises:
        ValueError: it is no JSON, is too long, is nested too deeply, or holds a number of thousands of digits.
    """
    if len(text) > _MAX_JSON:
        raise ValueError(f"{len(text)} characters, expected at most {_MAX_JSON}")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def cell(value: object) -> object:
    """A value for a table that spreadsheets open: text is never a formula, and holds no control characters but ends of lines."""
    if not isinstance(value, str):
        return value
    text = "\n".join(shown(line, _MAX_JSON) for line in value.split("\n"))
    return f"'{text}" if text.startswith(_FORMULA) else text


def harmless(character: str) -> bool:
    """Whether a character is seen, and moves nothing around it."""
    # Cc: control, Cf: format (turns the direction), Cs: half of a pair, Zl and Zp: ends of lines. Joiners are a part of words in many languages.
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp") or character in "\u200c\u200d"
