"""The measurement of two people in one picture: photographs side by side score as who they show, and baselines get no help."""
import numpy as np
import pytest

from benchmarks.two_people import ARRANGEMENTS, SHOTS, SIDE, graph, judge, photographed, summary
from portrait_world.judging.likeness import scale

PAIR = (4, 9)


@pytest.fixture(scope="module")
def rulers(shipped):
    return [scale("test", index) for index in PAIR]


@pytest.fixture(scope="module")
def photographs():
    return photographed(PAIR, "test", SHOTS[0], 3)


def test_photographs_side_by_side_score_as_the_people_in_them(rulers, photographs):
    found = summary([judge(photographs, *rulers, SHOTS[0])])
    assert min(found["left→first"], found["right→second"]) > 0.6 and max(found["left→second"], found["right→first"]) < 0.3
    assert found["right person"] == found["in either order"] == found["prompt"] == 1 and found["no face"] == 0
    assert summary([judge(photographs, *rulers, SHOTS[1])])["prompt"] < 0.7  # nothing of this was said but that it is a photograph of a bare face


def test_two_who_changed_places_are_both_there_and_both_wrong(rulers, photographs):
    changed = np.concatenate([photographs[:, :, SIDE:], photographs[:, :, :SIDE]], 2)
    straight, crossed = (judge(pictures, *rulers, SHOTS[0]) for pictures in (photographs, changed))
    assert np.allclose(crossed.left_first, straight.right_first, atol=1e-5) and np.allclose(crossed.right_second, straight.left_second, atol=1e-5)
    found = summary([crossed])
    assert found["right person"] == 0 and found["in either order"] == 1


def test_one_person_twice_is_half_right_in_no_order(rulers, photographs):
    twice = np.concatenate([photographs[:, :, :SIDE]] * 2, 2)
    found = summary([judge(twice, *rulers, SHOTS[0])])
    assert found["right person"] == 0.5 and found["in either order"] == 0 and found["right→first"] == pytest.approx(found["left→first"], abs=1e-5)


def test_a_half_without_a_face_counts_as_nobody(rulers, photographs):
    empty = photographs.copy()
    empty[:, :, SIDE:] = 128
    found, whole = summary([judge(empty, *rulers, SHOTS[0])]), summary([judge(photographs, *rulers, SHOTS[0])])
    assert found["no face"] == 0.5 and found["left→first"] == pytest.approx(whole["left→first"], abs=1e-5)
    assert found["right→second"] == pytest.approx(float(rulers[1].calibrated(0.0)), abs=1e-6)


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_all_are_drawn_alike_and_nothing_of_ours_helps_plain_textual_inversion(name):
    made = graph(ARRANGEMENTS[name], ("a.safetensors", "b.safetensors"), SHOTS[0], 2, seed=5)
    kinds = [node["class_type"] for node in made.values()]
    texts = " ".join(node["inputs"]["text"] for node in made.values() if node["class_type"] == "CLIPTextEncode")
    own = {kind for kind in kinds if kind.startswith("IDEA_")} - {"IDEA_LoadDemoModel"}
    assert bool(own) == ARRANGEMENTS[name].ours != ("embedding:a" in texts and "embedding:b" in texts)
    (sampler,) = (node["inputs"] for node in made.values() if node["class_type"] == "KSampler")
    assert (sampler["seed"], sampler["steps"], sampler["cfg"]) == (5, 20, 3.0)
    assert kinds[-1] == "PreviewImage"
    links = [(number, value[0]) for number, node in made.items() for value in node["inputs"].values() if isinstance(value, list)]
    assert all(int(source) < int(number) for number, source in links)
