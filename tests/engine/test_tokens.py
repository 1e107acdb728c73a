"""Triggers and prompt templates."""
import pytest
import torch

from idea_engine.backends.templates import prompt_inputs, tokenize_template
from idea_engine.errors import TriggerError
from idea_engine.prompts.trigger import check_trigger, scene_of, trigger_pattern
from idea_engine.training.config import prompt_templates


@pytest.mark.parametrize("trigger", ["<anna>", "<anna-2>", "sks_person", "<Jürgen>", "zxqv7"])
def test_good_triggers_pass(trigger):
    assert check_trigger(trigger) == trigger


@pytest.mark.parametrize(
    "trigger, says",
    [("", "empty"), ("<my anna>", "white space"), ("anna\n", "white space"), ("(anna)", "'\\('"), ("<a:b>", "':'"), ("<>", "no letter"), ("<" + "a" * 99 + ">", "more than 64"), ("<\x07a>", "unprintable")],
)
def test_bad_triggers_say_what_is_wrong_and_what_to_choose(trigger, says):
    with pytest.raises(TriggerError, match=says) as caught:
        check_trigger(trigger)
    assert "<anna>" in str(caught.value)


def test_a_word_that_is_one_token_already_is_refused(backend):
    with pytest.raises(TriggerError, match="already a token"):
        check_trigger("photo", backend.word_ids)
    assert check_trigger("xqz", backend.word_ids) == "xqz"


def test_the_longest_trigger_wins_and_words_are_not_torn():
    pattern = trigger_pattern(["<anna>", "anna7", "<anna>2"])
    assert pattern.findall("<anna>2, <anna> and anna7 but not anna77 or joanna7") == ["<anna>2", "<anna>", "anna7"]


def test_templates_keep_places_where_the_placeholder_stands(any_backend):
    for template in prompt_templates():
        prompt = tokenize_template(any_backend, template, 2)
        before = any_backend.word_ids(template.partition("{tokens}")[0])
        assert prompt.positions == (1 + len(before), 2 + len(before))
        assert all(ids.shape == (77,) for ids in prompt.ids.values())
        for key, ids in prompt.ids.items():
            assert ids[prompt.end] == any_backend.tokenizers[key].eos_token_id


def test_pseudo_tokens_stand_at_their_places_and_nowhere_else(any_backend):
    prompts = [tokenize_template(any_backend, template, 2) for template in ("a {tokens}", "a photo of {tokens} person")]
    rows = {key: torch.randn(2, width) for key, width in any_backend.family.encoders.items()}
    inputs = prompt_inputs(any_backend, prompts, rows)
    for key, table in inputs.items():
        for b, prompt in enumerate(prompts):
            plain = any_backend.token_rows(key, prompt.ids[key])
            for position in range(77):
                expected = rows[key][prompt.positions.index(position)] if position in prompt.positions else plain[position]
                assert torch.equal(table[b, position], expected)


@pytest.mark.parametrize("prompt, triggers, scene", [
    ("a photo of <anna> person on a beach", (), "a photo of person on a beach"),
    ("(a red hat:1.3), ((<anna>)), snow", (), "a red hat, snow"),
    ("a photo of {tokens} and <ben>’s dog", (), "a photo of and dog"),
    ("a photo of (‹anna›:0.8) in the rain", (), "a photo of in the rain"),
    ("sks_person at sea, embedding:anna, (embedding:ben:1.2)", ("sks_person",), "at sea"),
    ("sks_personage at sea", ("sks_person",), "sks_personage at sea"),
    ("cats \\(and dogs\\) <lora:soft:0.5>", (), "cats (and dogs)"),
    ("a < b, 3 > 2", (), "a < b, 3 > 2"),
    ("<anna>, (<ben>:1.1)", (), ""),
])
def test_of_a_prompt_the_scene_is_left_without_people_and_weights(prompt, triggers, scene):
    assert scene_of(prompt, triggers) == scene
