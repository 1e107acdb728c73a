"""The words of the live strip: every language has each of them, and the scripts ask for no other. Read as text: no browser is needed."""
import json
import re
from pathlib import Path

import pytest

import idea_engine
from tools.locales import LANGUAGES

SCRIPTS = Path(idea_engine.__file__).parent.parent / "web" / "js"
WORDS = json.loads(re.search(r"^export const WORDS = (\{.*?^\});$", (SCRIPTS / "words.js").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)[1])
SCRIPT = {"zh": "[\u4e00-\u9fff]", "ja": "[\u3040-\u30ff\u4e00-\u9fff]", "ko": "[\uac00-\ud7af]"}


def placeholders(text: str) -> list[str]:
    return sorted(re.findall(r"\{(\w+)\}", text))


def test_the_strip_speaks_the_languages_of_the_nodes():
    assert set(WORDS) == set(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_a_language_has_every_word_with_the_same_places_to_fill(language):
    assert list(WORDS[language]) == list(WORDS["en"])
    assert {name: placeholders(text) for name, text in WORDS[language].items()} == {name: placeholders(text) for name, text in WORDS["en"].items()}
    assert [name for name, text in WORDS[language].items() if not re.search(SCRIPT[language], text)] == []


def test_the_scripts_ask_for_every_word_and_for_no_other():
    """A word is a string literal that is said, chosen between two, or given as the reason of a stop."""
    chart, page = ((SCRIPTS / name).read_text(encoding="utf-8") for name in ("live_chart.js", "idea.js"))
    asked = re.findall(r'(?:say|this\.words\(\))\((?:[^"()]*\? )?"(\w+)"(?: : "(\w+)")?', chart) + re.findall(r'showStop\(event, "(\w+)"()\)', page)
    assert {name for pair in asked for name in pair if name} == set(WORDS["en"])


def test_no_word_is_left_in_the_strip_itself():
    """Text that an artist reads is set by textContent, title, alt and aria-label; none of them is given a literal."""
    chart = (SCRIPTS / "live_chart.js").read_text(encoding="utf-8")
    assert len(re.findall(r"\.textContent = |\.title = |\"aria-label\", ", chart)) >= 8
    literal = re.findall(r"(?:\.textContent = |\.title = |\"aria-label\", )([\"`][^\"`]*\w[^\"`]*[\"`])", chart)
    assert literal == []
