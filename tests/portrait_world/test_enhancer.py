"""The Portrait World's ID-Enhancer: it fits the shipped model, is small, and draws people it has never seen with nothing trained."""
import torch

from idea_engine.enhancer.file import read_label
from portrait_world.enhancer import PATH, person_at_once
from portrait_world.judging.likeness import face_model, scale
from portrait_world.train.enhancer import measures
from portrait_world.trials.trial import anchor_of_names, open_backend, read_faces, reference_photographs, run_trial
from portrait_world.world.people import SPLITS, person


def test_it_fits_the_shipped_model_and_face_pack_and_is_small():
    label = read_label(PATH)
    label.check_fits(open_backend(), face_model().recognizer)
    assert PATH.stat().st_size <= 3e6 and label.notes.licence and label.notes.figures and label.notes.step > 0


def test_people_it_has_never_seen_are_drawn_like_themselves_rather_than_like_one_another():
    people = (11, 57)
    pictures = {index: run_trial("enhancer-0", "test", index, 1, 0).pictures for index in people}
    for own, other in (people, people[::-1]):
        ruler = scale("test", own)
        assert ruler.likeness(pictures[own]).mean() > ruler.likeness(pictures[other]).mean() + 0.1


def test_several_photographs_of_a_person_say_nearly_the_same():
    backend = open_backend()
    anchor = anchor_of_names(backend)
    _, faces = read_faces(reference_photographs("test", 7, 3))
    ending = lambda face: person_at_once(backend, face, anchor).ending  # noqa: E731
    from idea_engine.faces.doctor import only_rows

    one, other = (ending(only_rows(faces, [row])) for row in (0, 1))
    _, somebody = read_faces(reference_photographs("test", 8, 1))
    assert (one - other).norm() < (one - ending(somebody)).norm()
    assert not torch.equal(ending(faces), one)


def test_what_a_person_looks_like_in_numbers_tells_everybody_apart():
    rows = torch.stack([torch.from_numpy(measures(person("many", index))) for index in range(50)])
    assert SPLITS["many"] > 6000 and torch.pdist(rows).min() > 1.0
    assert float(rows.abs().max()) <= 1.5
