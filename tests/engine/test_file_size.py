"""Sizes as people read them."""
import re

from idea_engine.files.file_size import shown_size


def test_what_is_said_is_as_near_as_its_last_digit():
    for count in (0, 1, 499, 1234, 17_400, 999_499, 999_500, 1_000_000, 3_449_999, 680_000_000):
        number, unit = re.fullmatch(r"(\d+(?:\.\d)?) (kB|MB)", shown_size(count)).groups()
        assert abs(float(number) * {"kB": 1e3, "MB": 1e6}[unit] - count) <= {"kB": 500, "MB": 50_000}[unit]
        assert (unit == "kB") == (float(number) < 1000 and count < 999_500)


def test_a_small_file_is_never_nothing_of_a_megabyte():
    assert shown_size(17_400) == "17 kB" and shown_size(3_400_000) == "3.4 MB"
