"""The tokenizer is CLIP's, and the compact encoder grows into the one transformers knows."""
import pytest
import torch

from portrait_world import tokenizer
from portrait_world.networks.text_encoder import CONFIG, TABLE, TextEncoder, expanded_state_dict, used_ids

PROMPTS = ["", "a photo of anna smith", "An oil painting, 1234 naïve <anna>'s (word:1.2)", "x " * 200]


def test_padding_and_truncation_are_clips():
    ids = tokenizer.tokenize(PROMPTS)
    assert ids.shape == (4, 77)
    assert (ids[:, 0] == tokenizer.START).all() and (ids[:, -1] == tokenizer.END).all()


def test_tokens_are_those_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    vocabulary, merges = tokenizer.write_files(tmp_path)
    theirs = transformers.CLIPTokenizer(str(vocabulary), str(merges), pad_token="<|endoftext|>")
    for prompt, ours in zip(PROMPTS, tokenizer.tokenize(PROMPTS)):
        assert theirs(prompt, padding="max_length", max_length=77, truncation=True).input_ids == ours.tolist()


def test_expanded_weights_give_the_same_numbers_in_transformers():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    ours = TextEncoder().eval()
    theirs = transformers.CLIPTextModel(transformers.CLIPTextConfig(**CONFIG)).eval()
    theirs.load_state_dict(expanded_state_dict(ours.state_dict(), used_ids()), strict=False)
    ids = tokenizer.tokenize(PROMPTS)
    with torch.no_grad():
        assert torch.allclose(ours(ids), theirs(ids).last_hidden_state, atol=1e-5)


def test_words_that_were_never_trained_share_one_row():
    encoder = TextEncoder()
    full = expanded_state_dict(encoder.state_dict(), used_ids())[TABLE]
    assert full.shape == (49408, CONFIG["hidden_size"])
    unknown = tokenizer.encode("xylophone")[0]
    assert torch.equal(full[unknown], encoder.state_dict()[TABLE][0])
    known = tokenizer.encode("anna")[0]
    assert not torch.equal(full[known], full[unknown])
