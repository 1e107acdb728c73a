"""The languages of the pack: every node, input and output has its text in each, and English is what the code says."""
import re

import pytest

from tools.locales import LANGUAGES, english, leaves, read


@pytest.fixture(scope="module")
def texts():
    """Language → place → text."""
    return {language: leaves(read(language)) for language in LANGUAGES}


def test_english_is_what_the_nodes_say(host, texts):
    said = leaves(english(host.client.object_info()))
    assert set(said) == set(texts["en"])
    unknown = [place for place, text in said.items() if place[1] == "outputs" and place[-1] == "tooltip" and not text]  # ComfyUI of June 2024 does not tell
    assert {place: text for place, text in said.items() if place not in unknown} == {place: text for place, text in texts["en"].items() if place not in unknown}


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_a_language_has_every_place_and_no_other(texts, language):
    assert set(texts[language]) == set(texts["en"])
    assert all(text.strip() for text in texts[language].values())


SCRIPT = {"zh": "[\u4e00-\u9fff]", "ja": "[\u3040-\u30ff\u4e00-\u9fff]", "ko": "[\uac00-\ud7af]"}


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_tooltips_and_descriptions_are_in_the_languages_own_script(texts, language):
    foreign = [place for place, text in texts[language].items() if place[-1] in ("tooltip", "description") and not re.search(SCRIPT[language], text)]
    assert foreign == []


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_names_of_files_and_of_choices_are_not_translated(texts, language):
    """What must be typed or found as it stands: a translation that lost one would send its reader astray."""
    kept = re.compile(r"models/\w+|learned_embeds\.bin|\.safetensors|names_text|buffalo_l|sefi|released|face mask|CC BY-NC 4\.0|77|112×112")
    lost = [(place, found) for place, text in texts["en"].items() for found in kept.findall(text) if found not in texts[language][place]]
    assert lost == []
