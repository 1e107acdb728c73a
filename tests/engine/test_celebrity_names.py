"""The shipped list of names: what the anchor's average relies on."""
from pathlib import Path

import idea_engine
from idea_engine.identity.anchor import celebrity_names, parse_names

LINES = (Path(idea_engine.__file__).parent / "data" / "celebrity_names.txt").read_text(encoding="utf-8").splitlines()
NAMES = [line for line in LINES if not line.startswith("#")]


def test_the_list_begins_with_what_it_is_where_it_comes_from_and_its_licence():
    head = LINES[:len(LINES) - len(NAMES)]
    assert all(line.startswith("# ") for line in head)
    assert any(line.startswith("# Source: ") for line in head) and any(line.startswith("# Licence: ") for line in head)


def test_there_are_about_seven_hundred_distinct_names():
    assert 650 <= len(NAMES) <= 750
    assert len({name.casefold() for name in NAMES}) == len(NAMES)


def test_every_name_is_a_first_and_a_last_name():
    wrong = [name for name in NAMES if name != " ".join(name.split()) or len(name.split()) != 2 or not name.replace(" ", "").isalpha()]
    assert wrong == []


def test_the_engine_reads_the_list_as_it_stands():
    assert parse_names("\n".join(LINES)) == NAMES == celebrity_names()
