"""The model's own reading of what a face does, on people that it has never seen."""
import torch

from portrait_world.trial import _faces, _world, reference_photographs, reference_shots

WORDS = {"neutral": "with a neutral face", "smiling": "smiling", "sad": "looking sad", "surprised": "looking surprised", "angry": "looking angry"}


def test_most_expressions_are_read_from_one_photograph(shipped):
    from idea_engine.expressions import EXPRESSIONS, read_expressions
    from idea_engine.face import embed_faces
    from idea_engine.photos import prepare_masks, prepare_photos

    assert set(WORDS.values()) == set(EXPRESSIONS)
    backend, _ = _world()
    hits, people = 0, range(10)
    for index in people:
        photos = [torch.from_numpy(reference_photographs("validation", index, 1)[0]).float() / 255]
        masks = prepare_masks(embed_faces(_faces(), photos).masks, photos, 128)
        (said,) = read_expressions(backend, backend.encode_images(prepare_photos(photos, 128)), masks, seed=0)
        hits += said == WORDS[reference_shots(index, 1)[0].expression]
    assert hits >= 0.7 * len(people)  # 0.2 by chance
