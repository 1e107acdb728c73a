"""The engine's own tokenizer is CLIP's, whatever keyboard or web page a prompt comes from."""
import unicodedata

import pytest
import torch

from idea_engine.prompts.clip_tokenizer import END, LENGTH, START, encode, tokenize, write_files

PROMPTS = ["a photo of a person's hat", "Anna Smith, 35mm film (1994)!", "it's 3:30 -- isn't it?", "café au lait", "Straße 🙂"]


def test_the_ids_are_those_of_transformers(tmp_path):
    from transformers import CLIPTokenizer

    theirs = CLIPTokenizer(*map(str, write_files(tmp_path)))
    for prompt, row in zip(PROMPTS, tokenize(PROMPTS)):
        assert row.tolist() == theirs(prompt, padding="max_length", max_length=LENGTH).input_ids
    assert tokenize(PROMPTS)[0, 0] == START and END in tokenize(PROMPTS)[0] and tokenize(PROMPTS).dtype == torch.int64


def test_files_that_are_there_are_left_alone(tmp_path):
    first = write_files(tmp_path)
    before = [(path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) for path in first]
    assert write_files(tmp_path) == first and [(path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) for path in first] == before


@pytest.mark.parametrize("typed, meant", [
    ("anna’s “red” hat", "anna's \"red\" hat"),
    ("salt &amp; pepper", "salt & pepper"), ("salt &amp;amp; pepper", "salt & pepper"), ("a&nbsp;hat", "a hat"),
    (unicodedata.normalize("NFD", "café"), "café"),
    ("ａ ｈａｔ，　ｒｅｄ", "a hat, red"), ("ﬁlm", "film"),
])
def test_what_is_typed_another_way_is_read_the_same(typed, meant):
    assert typed != meant and encode(typed) == encode(meant)
