"""Text of foreign files: in one line of a terminal, as JSON, in a table."""
import csv
import io

import pytest

from idea_engine.files.foreign_text import parsed_json, shown
from idea_engine.judging.likeness import csv_text


@pytest.mark.parametrize("text, seen", [
    ("Anna Müller, 安娜, नेहा", "Anna Müller, 安娜, नेहा"), ("a\x1b[2Jb", "a\\x1b[2Jb"), ("yes\nface stored  no", "yes\\nface stored  no"), ("a\u202eb", "a\\u202eb"),
    ("a\ud800b", "a\\ud800b"), ("a\u2028b", "a\\u2028b"), ("a\x9bb", "a\\x9bb"), (3, "3"), ("", ""),
])
def test_nothing_moves_the_cursor_or_ends_the_line(text, seen):
    assert shown(text) == seen
    shown(text).encode()


@pytest.mark.parametrize("text", ["x" * 10**6, "\n" * 10**6, "\x1b" * 199])
def test_no_more_than_two_hundred_characters_are_shown(text):
    assert len(shown(text)) <= 200 and shown(text).endswith("…")
    assert shown("x" * 200) == "x" * 200


@pytest.mark.parametrize("text", ["[" * 10**5, '{"a":' * 10**5, "9" * 5000, "", "{", b"\xff", "[" + "1," * (9 << 20) + "1]"], ids=range(7))
def test_json_of_any_kind_is_an_answer_or_one_error(text):
    with pytest.raises(ValueError):
        parsed_json(text)
    assert parsed_json('{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_table_holds_no_formula(name):
    (row,) = csv.DictReader(io.StringIO(csv_text([{"identity": name, "likeness": -0.25}]), newline=""))
    assert row["identity"][0] in "'\\" and row["identity"].endswith(name[1:]) and row["likeness"] == "-0.25"


def test_what_is_no_formula_is_left_as_it_is():
    (row,) = csv.DictReader(io.StringIO(csv_text([{"identity": "anna", "prompt": "a, b = c", "none": None}])))
    assert row == {"identity": "anna", "prompt": "a, b = c", "none": ""}
