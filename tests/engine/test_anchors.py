"""The textual anchor against the text encoder itself."""
import pytest
import torch

from idea_engine.errors import NamesError
from idea_engine.identity.anchor import celebrity_names, compute_anchor, parse_names


def test_the_anchor_is_the_encoders_output_for_the_averaged_names(backend):
    """Independent of the backend: transformers' own encoder with its embedding table's rows replaced."""
    names = ["photo face", "face photo", "ab"]
    anchor = compute_anchor(backend, names)
    tokenizer, encoder = backend.tokenizers["clip_l"], backend.encoders["clip_l"]
    table = encoder.get_input_embeddings().weight
    spelled = [tokenizer(name, add_special_tokens=False).input_ids for name in names]
    averaged = torch.stack([table[[ids[0] for ids in spelled]].mean(0), table[[ids[1] for ids in spelled]].mean(0)])
    torch.testing.assert_close(anchor.inputs["clip_l"], averaged)

    import copy

    changed = copy.deepcopy(encoder)
    spare = tokenizer("x y", add_special_tokens=False).input_ids[:2]
    with torch.no_grad():
        changed.get_input_embeddings().weight[spare] = averaged
        ids = [tokenizer.bos_token_id, *spare] + [tokenizer.eos_token_id] * 74
        expected = changed(torch.tensor([ids])).last_hidden_state[0, 1:3]
    torch.testing.assert_close(anchor.rows["clip_l"], expected, rtol=1e-5, atol=1e-5)
    assert anchor.names_used == (3, 3)


def test_every_encoder_of_a_family_has_its_anchor(any_backend, enhance):
    anchor = enhance(any_backend).anchor
    assert {key: tuple(rows.shape) for key, rows in anchor.rows.items()} == {key: (2, width) for key, width in any_backend.family.encoders.items()}


def test_a_single_letter_name_enters_the_first_position_only(backend):
    assert compute_anchor(backend, ["a", "bc d"]).names_used == (2, 1)


def test_one_word_fills_every_position(backend):
    anchor = compute_anchor(backend, ["a"])
    assert torch.equal(anchor.inputs["clip_l"][0], anchor.inputs["clip_l"][1])


def test_names_are_read_from_lines_and_commas_without_comments():
    assert parse_names("# heading\nAda  Lovelace\n\n Alan Turing, Grace Hopper ,\n") == ["Ada Lovelace", "Alan Turing", "Grace Hopper"]


@pytest.mark.parametrize("text", ["", "\n \n", "# only a comment", ",,"])
def test_an_empty_list_of_names_says_where_to_write_them(text):
    with pytest.raises(NamesError, match="names_text"):
        parse_names(text)


def test_names_that_no_tokenizer_knows_are_refused(backend):
    with pytest.raises(NamesError, match="could be tokenized"):
        compute_anchor(backend, ["", " "])


def test_the_shipped_names_are_many():
    assert len(celebrity_names()) > 600
