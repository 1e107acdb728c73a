"""People, shots and pictures: pure functions of their seeds, and splits that nobody crosses."""
import numpy as np
import pytest

from portrait_world.drawing.anna import anna, photograph
from portrait_world.drawing.portrait import face_box, landmarks, render
from portrait_world.world.people import FIRST_NAMES, LAST_NAMES, SPLITS, name, names, person
from portrait_world.world.portrayal import Shot, sample_shot


def test_the_same_person_and_shot_give_the_same_bytes():
    shot = sample_shot(np.random.default_rng(3))
    first, second = render(person("unnamed", 7), shot), render(person("unnamed", 7), shot)
    assert first.shape == (128, 128, 3) and first.dtype == np.uint8
    assert np.array_equal(first, second)


def test_splits_share_no_person():
    seen = {}
    for split, count in SPLITS.items():
        for index in range(min(count, 400)):
            key = tuple(sorted(person(split, index).traits.items()))
            assert key not in seen, f"{split} {index} is also {seen.get(key)}"
            seen[key] = (split, index)


def test_an_index_outside_the_split_is_refused():
    with pytest.raises(IndexError, match="validation"):
        person("validation", SPLITS["validation"])


def test_names_are_unique_but_their_words_are_shared():
    assert len(set(names())) == SPLITS["named"]
    for words, position in ((FIRST_NAMES, 0), (LAST_NAMES, 1)):
        counts = {word: sum(n.split()[position] == word for n in names()) for word in words}
        assert min(counts.values()) >= 5
    assert name(0) == "anna smith"


def test_landmarks_lie_inside_the_face_and_in_order():
    rng = np.random.default_rng(0)
    for index in range(30):
        who, shot = person("validation", index), sample_shot(rng)
        points, box = landmarks(who, shot), face_box(who, shot)
        assert (points >= box[:2] - 0.02).all() and (points <= box[2:] + 0.02).all()
        assert points[0, 0] < points[1, 0] and points[3, 0] < points[4, 0]  # left before right
        assert points[:2, 1].max() < points[2, 1] < points[3:, 1].min()  # eyes, nose, mouth from top to bottom


def test_another_resolution_shows_the_same_drawing():
    who, shot = person("test", 4), Shot(scene="beach", seed=5)
    small = render(who, shot).astype(float)
    large = render(who, shot, size=512).astype(float).reshape(128, 4, 128, 4, 3).mean((1, 3))
    assert np.abs(small - large).mean() < 6


def test_every_word_of_a_shot_changes_the_picture():
    base = Shot(seed=1)
    plain = render(anna(), base)
    for change in ({"scene": "space"}, {"colour": "red"}, {"garment": "suit"}, {"expression": "smiling"}, {"accessory": "glasses"}, {"style": "sketch"}):
        assert not np.array_equal(plain, render(anna(), base.with_(**change))), change


def test_the_shipped_photograph_is_the_drawing_of_anna():
    from pathlib import Path

    from PIL import Image

    shipped = np.asarray(Image.open(Path(__file__).parents[2] / "example_workflows" / "anna.png").convert("RGB"))
    assert np.array_equal(shipped, photograph())
