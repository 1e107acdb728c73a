"""The tiny FaceCLIP: its parts fit together, it draws, and its lessons are what they say."""
import numpy as np
import pytest
import torch

from portrait_world import assets, faceclip, tokenizer
from portrait_world.world.portrayal import Shot

PROMPTS = ["a photo of a person on a beach", ""]


@pytest.fixture(scope="module")
def encoder():
    return faceclip.load()


def photographed(count=1, index=0):
    """A FaceEmbedding of a validation person, by the world's own face pack."""
    from portrait_world.trials.trial import read_faces, reference_photographs

    return read_faces(reference_photographs("validation", index, count))[1]


@torch.no_grad()
def test_its_text_tower_is_the_worlds_text_encoder(encoder):
    from portrait_world.pipeline import text_encoder

    ids = tokenizer.tokenize(PROMPTS)
    assert torch.allclose(encoder.parts[0].read(ids)[0], text_encoder()(ids).last_hidden_state, atol=1e-4)


def test_only_what_was_learned_is_stored():
    stored = assets.state(faceclip.ASSET)
    assert not any(faceclip.is_text_tower(key.split(".", 1)[1]) for key in stored)
    assert (assets.FOLDER / f"{faceclip.ASSET}.safetensors").stat().st_size <= 4_000_000


@torch.no_grad()
def test_a_face_and_a_prompt_give_the_rows_the_denoiser_reads(encoder):
    face = photographed()
    fused, pooled = encoder.encode(face.crops.permute(0, 3, 1, 2), PROMPTS)
    assert fused.shape == (2, 77, 128) and pooled.shape == (2, 128) and fused.isfinite().all()
    other, _ = encoder.encode(photographed(index=1).crops.permute(0, 3, 1, 2), PROMPTS)
    assert (fused - other).abs().max() > 0.01


def test_several_photographs_of_a_person_are_drawn_as_one_and_the_same_seed_gives_the_same_picture():
    from portrait_world.trials.faceclip_trial import draw

    face, shots = photographed(count=2), (Shot(scene="beach"), Shot(scene="library", style="sketch"))
    first = draw(face, shots, seed=1, steps=2)
    assert first.shape == (2, 128, 128, 3) and first.dtype == np.uint8
    assert np.array_equal(first, draw(face, shots, seed=1, steps=2)) and not np.array_equal(first, draw(face, shots, seed=2, steps=2))


def test_a_named_persons_lesson_keeps_every_row_of_the_text():
    """The rows that fused ones must become are the text's own, each once, with the prompt's words in the prompt's places."""
    from idea_engine.faceclip.prompt import chunks
    from portrait_world.train.faceclip import named_places

    places = named_places()
    assert sorted(places) == list(range(77)) and places[0] == 0
    config = faceclip.load().parts[0].config
    ours = chunks(["a photo of a person on a beach"], tokenizer.encode, config, True).ids[0, 0]
    theirs = tokenizer.tokenize(["a photo of anna smith on a beach"])[0][places]
    same = ours[7:] == theirs[7:]
    assert [tokenizer.encode(word)[0] for word in ("a", "person")] == ours[7:][~same].tolist()  # only the name differs
