"""The figure of where words look: words and tokens agree."""
from portrait_world import captions
from portrait_world.attention_figure import word_places
from portrait_world.trial import PROMPTS, _world, face_masks, reference_photographs


def test_every_word_is_found_where_its_tokens_are():
    from idea_engine.tokens import tokenize_template

    backend, _ = _world()
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
    from portrait_world.people import person
    from portrait_world.portrait import face_box
    import numpy as np
    from portrait_world.shot import photograph

    shot = photograph(np.random.default_rng([11, 4])).with_(accessory="none")
    (mask,) = face_masks(reference_photographs("test", 4, 1))
    left, top, right, bottom = (face_box(person("test", 4), shot) * 128).round().astype(int)
    inside = mask[max(top, 0) : bottom, max(left, 0) : right].sum() / mask.sum()
    assert inside > 0.8 and mask.shape == (128, 128)
