"""The model's own reading of what a face does, on people that it has never seen."""
from portrait_world.trials.trial import open_backend, read_faces, reference_photographs, reference_shots

WORDS = {"neutral": "with a neutral face", "smiling": "smiling", "sad": "looking sad", "surprised": "looking surprised", "angry": "looking angry"}


def test_most_expressions_are_read_from_one_photograph(shipped):
    from idea_engine.training.expressions import EXPRESSIONS, read_expressions
    from idea_engine.training.pictures import prepare_masks, prepare_photos

    assert set(WORDS.values()) == set(EXPRESSIONS)
    backend = open_backend()
    hits, people = 0, range(10)
    for index in people:
        photos, face = read_faces(reference_photographs("validation", index, 1))
        masks = prepare_masks(face.masks, photos, 128)
        (said,) = read_expressions(backend, backend.encode_images(prepare_photos(photos, 128)), masks, seed=0)
        hits += said == WORDS[reference_shots(index, 1)[0].expression]
    assert hits >= 0.7 * len(people)  # 0.2 by chance
