"""The benchmark's table and bookkeeping; whole trials are run by the benchmark itself."""
import math
import sys

import numpy as np
import pytest

from portrait_world.judging.likeness import faces_in, has_face, other_photographs
from portrait_world.trials.benchmark import Score, summary, table
from portrait_world.trials.contenders import CONTENDERS, recipe_of
from portrait_world.trials.peak_memory import peak_megabytes
from portrait_world.trials.trial import PROMPTS, TRIGGER, learn, read_faces, reference_photographs
from portrait_world.world import captions
from portrait_world.world.portrayal import ATTRIBUTES


def test_every_contender_that_learns_has_a_recipe_in_the_engine():
    for name, contender in ((name, contender) for name, contender in CONTENDERS.items() if not contender.shows):
        recipe = recipe_of(contender, steps=7)
        assert recipe.steps == 7 and "tokens" in recipe.trains, name


def test_the_baselines_train_nothing_but_tokens():
    for name in ("textual-inversion", "cross-init"):
        assert recipe_of(CONTENDERS[name]).trains == ("tokens",)
    assert recipe_of(CONTENDERS["textual-inversion"]).start == "person"


def test_references_are_never_among_the_photographs_that_score():
    references = {picture.tobytes() for picture in reference_photographs("test", 0, 4)}
    assert not references & {picture.tobytes() for picture in other_photographs("test", 0)}


def test_what_decides_whether_there_is_a_face_is_the_face_whose_mask_is_read():
    pictures = np.concatenate([reference_photographs("test", 4, 2), np.full((1, 128, 128, 3), 128, np.uint8)])
    *faces, nobody = faces_in(pictures)
    assert nobody is None and has_face(pictures).tolist() == [True, True, False]
    read = read_faces(pictures[:2])[1]
    for face, box, landmarks in zip(faces, read.boxes.numpy(), read.landmarks.numpy(), strict=True):
        assert np.array_equal(face.box, box) and np.array_equal(face.landmarks, landmarks)


def test_prompts_cover_every_scene_once():
    assert sorted(shot.scene for shot in PROMPTS) == sorted(ATTRIBUTES["scene"])


def test_the_table_shows_means_and_spreads():
    made = [Score(v, v, 3.0, 0.0, 0.0, {field: 1.0 for field in ATTRIBUTES}, {10: (v, 1.0)}, 0.1, 2.0, 100.0) for v in (0.2, 0.4)]
    figures = summary(made)
    assert figures["likeness"] == pytest.approx([0.3, 0.1])
    assert "0.300 ± 0.100" in table({"fast": figures})
    assert figures["at 10"] == pytest.approx([0.3, 0.1]) and figures["prompt at 10"] == [1.0, 0.0]


def test_where_the_system_counts_no_memory_there_is_no_figure(monkeypatch):
    assert math.isnan(peak_megabytes()) == (sys.platform == "win32")
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    assert math.isnan(peak_megabytes())


def test_an_unknown_method_is_refused(monkeypatch, capsys):
    from portrait_world.trials import benchmark

    monkeypatch.setattr("sys.argv", ["benchmark", "--methods", "magic"])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert "no such method: magic" in capsys.readouterr().err


def test_before_a_person_comes_in_the_prompt_is_its_plain_words_and_afterwards_the_person():
    artist = learn("untrained", "test", 4, 1, 0).artist
    shots = PROMPTS[:1]
    plain = artist.draw_texts([captions.prompt(TRIGGER, shot) for shot in shots], 0)
    never = artist.draw(shots, 0, 1.01)
    assert np.array_equal(never, plain)
    far = [np.abs(artist.draw(shots, 0, share).astype(float) - plain).mean() for share in (0.0, 0.3, 0.7)]
    assert far[0] > far[1] > far[2] > 0  # the later, the nearer to the plain words' picture
