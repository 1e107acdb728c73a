"""The figure of where words look: words and tokens agree."""
import numpy as np

from portrait_world.drawing.portrait import face_box
from portrait_world.trials.attention_figure import word_places
from portrait_world.trials.trial import PROMPTS, open_backend, read_faces, reference_photographs
from portrait_world.world import captions
from portrait_world.world.people import person
from portrait_world.world.portrayal import photograph


def test_every_word_is_found_where_its_tokens_are():
    from idea_engine.backends.templates import tokenize_template

    backend = open_backend()
    for shot in PROMPTS:
        text = captions.prompt("{tokens}", shot)
        prompt = tokenize_template(backend, text, 2)
        ids = prompt.ids["clip_l"].tolist()
        for word, places in word_places(backend, text, prompt.positions, "<anna>"):
            if word == "<anna>":
                assert places == prompt.positions
            else:
                assert [ids[place] for place in places] == backend.word_ids(word), word


def test_the_face_mask_lies_on_the_face():
    shot = photograph(np.random.default_rng([11, 4])).with_(accessory="none")
    _, face = read_faces(reference_photographs("test", 4, 1))
    mask = face.masks[0]
    left, top, right, bottom = (face_box(person("test", 4), shot) * 128).round().clip(0, 128).astype(int)
    within = np.zeros((128, 128), bool)
    within[top:bottom, left:right] = True
    assert mask.shape == (128, 128) and mask[within].mean() > 5 * mask[~within].mean()
