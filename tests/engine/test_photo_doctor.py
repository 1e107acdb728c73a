"""The reference doctor on real recognizers: photographs are degraded, one fault at a time, and the fault is found."""
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import portrait_world
from idea_engine.faces.align import ARCFACE_TEMPLATE
from idea_engine.faces.doctor import REJECT, WARN, examine_photos, only_rows, report_text
from idea_engine.faces.embed import doubts, search_photos
from idea_engine.faces.insightface_encoder import load_face_model
from idea_engine.faces.measures import head_pose
from idea_engine.faces.photo import photo_key
from idea_engine.sheets.numbered import BAD, GOOD, Tile, draw_sheet
from portrait_world.drawing.portrait import render
from portrait_world.world.people import person
from portrait_world.world.portrayal import photograph

PEOPLE = (0, 1, 2, 3)


@pytest.fixture(scope="module")
def encoder():
    return load_face_model(Path(portrait_world.__file__).parent / "assets" / "face_pack", "CPU", 320)


def photo(who: int, shot: int, size: int = 320) -> np.ndarray:
    """(size, size, 3) uint8: a photograph of a validation person."""
    return render(person("validation", who), photograph(np.random.default_rng([who, shot])), size)


def tensors(pictures):
    return [torch.from_numpy(np.asarray(picture).astype(np.float32) / 255) for picture in pictures]


def shorts(verdict, severity=None):
    return {one.short for one in verdict.findings if severity in (None, one.severity)}


@pytest.mark.parametrize("who", PEOPLE)
def test_several_photographs_of_one_person_pass(encoder, who):
    verdicts = examine_photos(encoder, tensors(photo(who, shot) for shot in range(4))).verdicts
    assert all(verdict.kept("usable") for verdict in verdicts), report_text(verdicts, "usable")


@pytest.mark.parametrize("who", PEOPLE)
def test_a_stranger_among_them_is_found_and_nobody_else(encoder, who):
    pictures = [photo(who, shot) for shot in range(4)]
    pictures.insert(2, photo(who + 10, 0))
    verdicts = examine_photos(encoder, tensors(pictures)).verdicts
    assert [v.number for v in verdicts if "another person?" in shorts(v, REJECT)] == [3]


def degraded(picture: np.ndarray, fault: str) -> np.ndarray:
    if fault == "blurred":
        return cv2.GaussianBlur(picture, (0, 0), 7)
    if fault == "small face":
        return np.pad(cv2.resize(picture, (72, 72), interpolation=cv2.INTER_AREA), ((40, 40), (40, 40), (0, 0)), constant_values=128)
    if fault == "too dark":
        return (picture * 0.3).astype(np.uint8)
    if fault == "burnt out":
        middle = picture[picture.shape[0] // 3 : -picture.shape[0] // 3, picture.shape[1] // 3 : -picture.shape[1] // 3].mean()
        return np.clip(picture * (420 / middle), 0, 255).astype(np.uint8)
    raise ValueError(fault)


@pytest.mark.parametrize("fault", ("blurred", "small face", "too dark", "burnt out"))
@pytest.mark.parametrize("who", PEOPLE)
def test_one_fault_is_found_by_name_and_the_plain_photograph_has_none_of_it(encoder, who, fault):
    plain = photo(who, 1)
    before, after = (examine_photos(encoder, tensors([picture])).verdicts[0] for picture in (plain, degraded(plain, fault)))
    assert fault not in shorts(before)
    assert fault in shorts(after) or (fault in ("too dark", "burnt out") and shorts(after) & {"no face", "too bright"}), report_text([after], "usable")


def test_a_covered_mouth_is_seen(encoder):
    plain = photo(0, 1)
    marks = examine_photos(encoder, tensors([plain])).found[0].faces[0].landmarks
    unit = np.linalg.norm(marks[1] - marks[0])
    covered = plain.copy()
    low, high = (marks[3] - [unit * 0.3, unit * 0.35]).astype(int), (marks[4] + [unit * 0.3, unit * 0.6]).astype(int)
    cv2.rectangle(covered, tuple(map(int, low)), tuple(map(int, high)), (150, 160, 170), -1)
    before, after = (examine_photos(encoder, tensors([picture])).verdicts[0] for picture in (plain, covered))
    assert "mouth covered?" not in shorts(before) and "mouth covered?" in shorts(after, WARN)


@pytest.mark.parametrize("who", PEOPLE)
def test_of_two_copies_the_better_one_stays(encoder, who):
    plain = photo(who, 0)
    small = cv2.resize(cv2.resize(plain, (160, 160), interpolation=cv2.INTER_AREA), (320, 320), interpolation=cv2.INTER_CUBIC)
    dimmer = (small * 0.8).astype(np.uint8)
    verdicts = examine_photos(encoder, tensors([dimmer, photo(who, 5), plain])).verdicts
    assert "same as 3" in shorts(verdicts[0], REJECT)
    assert not any(short.startswith("same as") for v in verdicts[1:] for short in shorts(v))


def test_a_picture_without_a_face_and_one_with_two(encoder):
    nobody = np.full((320, 320, 3), (90, 140, 90), np.uint8)
    two = np.concatenate([photo(0, 0), photo(1, 0)], axis=1)
    verdicts = examine_photos(encoder, tensors([nobody, two, photo(0, 1)])).verdicts
    assert shorts(verdicts[0]) == {"no face"} and not verdicts[0].kept("usable")
    assert "2 faces" in shorts(verdicts[1], WARN)


def test_two_photographs_that_disagree_are_both_named(encoder):
    verdicts = examine_photos(encoder, tensors([photo(0, 0), photo(10, 0)])).verdicts
    assert all("two people?" in shorts(v, WARN) for v in verdicts)


def rotated(yaw: float, pitch: float) -> np.ndarray:
    """(5, 2): an average head turned in space, seen from afar."""
    unit = ARCFACE_TEMPLATE[1, 0] - ARCFACE_TEMPLATE[0, 0]
    head = np.concatenate([ARCFACE_TEMPLATE - ARCFACE_TEMPLATE.mean(0), unit * np.array([[0.0], [0.0], [0.5], [0.15], [0.15]])], axis=1)
    y, p = np.radians([yaw, pitch])
    around = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    nod = np.array([[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]])
    return (head @ (nod @ around).T)[:, :2] * 3 + 200


@pytest.mark.parametrize("yaw,pitch", ((0, 0), (30, 0), (-50, 0), (0, 25), (0, -40)))
def test_the_pose_of_a_turned_head_is_recovered(yaw, pitch):
    found = head_pose(rotated(yaw, pitch))
    assert found[0] == pytest.approx(yaw, abs=3) and found[1] == pytest.approx(pitch, abs=3)


def test_roll_is_the_angle_of_the_eyes():
    angle = np.radians(40)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    yaw, pitch, roll = head_pose(ARCFACE_TEMPLATE @ turn.T)
    assert roll == pytest.approx(40, abs=1) and abs(yaw) < 3


def test_the_report_names_every_photograph_its_figures_and_the_limit(encoder):
    pictures = [photo(2, 0), photo(2, 1), cv2.GaussianBlur(photo(2, 2), (0, 0), 7)]
    text = report_text(examine_photos(encoder, tensors(pictures)).verdicts, "usable")
    assert "1: good" in text and "blurred" in text and "limit 0.03" in text and "2 of 3 photographs are passed on" in text


def test_rows_of_the_good_ones_are_those_of_a_fresh_look(encoder):
    pictures = tensors(photo(3, shot) for shot in range(3))
    faces = examine_photos(encoder, pictures).faces
    some = only_rows(faces, [0, 2])
    again = examine_photos(encoder, [pictures[0], pictures[2]]).faces
    assert torch.equal(some.vectors, again.vectors) and some.image_index == (0, 1) and torch.equal(some.masks[1], again.masks[1])
    assert some.photographs == again.photographs == tuple(photo_key(picture) for picture in (pictures[0], pictures[2]))


def test_the_sheet_holds_every_tile_in_its_colour():
    grey = torch.full((30, 50, 3), 0.5)
    sheet = draw_sheet([Tile(grey, 1, GOOD, ("good",)), Tile(grey, 2, BAD, ("blurred", "small face"))], "two")
    flat = (sheet.reshape(-1, 3) * 255).round()
    for colour in (GOOD, BAD):
        assert (flat == torch.tensor(colour, dtype=torch.float32)).all(1).sum() > 1000


def vase() -> np.ndarray:
    """(256, 256, 3) uint8 in which the drawn world's detector sees a face."""
    from PIL import Image, ImageDraw

    clay = (184, 166, 203)
    picture = Image.new("RGB", (256, 256), (233, 140, 120))
    draw = ImageDraw.Draw(picture)
    draw.ellipse([70, 90, 186, 240], fill=clay)
    draw.rectangle([105, 40, 151, 110], fill=clay)
    draw.ellipse([95, 30, 161, 55], fill=clay)
    for x in (85, 150):
        draw.ellipse([x, 130, x + 20, 150], fill=(10, 10, 10))
    return np.asarray(picture)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (256, 256, 3), dtype=np.uint8)


def test_a_face_in_a_vase_or_in_noise_is_not_passed_on(encoder):
    """Each for itself, so that nothing but the picture speaks against it."""
    seen = 0
    for picture in (vase(), *(noise(seed) for seed in range(6))):
        examined = examine_photos(encoder, tensors([picture]))
        seen += examined.found[0].chosen is not None
        assert not examined.verdicts[0].kept("usable"), report_text(examined.verdicts, "usable")
    assert seen > 3  # the detector did see faces there


def test_what_may_be_no_face_is_said_and_what_is_one_is_not(encoder):
    pictures = tensors([photo(0, 0), vase()])
    found = search_photos(encoder, pictures)
    said = doubts(found)
    assert said.startswith("It is not certain that what was found in photograph 2 of 2 is a face (confidence 0.")
    assert f"{found[1].faces[0].score:.2f}" in said and "preview" in said
    assert doubts(found[:1]) == ""
