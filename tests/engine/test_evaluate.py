"""Likeness scores on embeddings whose answers are known."""
import math

import pytest
import torch

from idea_engine.errors import EvaluationError
from idea_engine.judging.likeness import COPYING_WARNING, copy_paste, copying, csv_text, likeness_rows, score_likeness
from idea_engine.sheets.contact import contact_sheet


def unit(*rows):
    return torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float32), dim=1)


def around(centre, count, spread, seed):
    """(count, 64) unit rows near ``centre``."""
    noise = torch.randn(count, 64, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(centre + spread * torch.nn.functional.normalize(noise, dim=1), dim=1)


def axis(i):
    return torch.eye(64)[i]


def yes(count):
    return torch.ones(count, dtype=torch.bool)


def test_a_picture_without_a_face_counts_zero_and_the_raw_mean_leaves_it_out():
    references = unit([1, 0, 0], [0.8, 0.6, 0])
    generated = unit([1, 0, 0], [math.nan] * 3, [0, 0, 1])
    found = torch.tensor([True, False, True])
    scored = score_likeness(generated, found, references)
    torch.testing.assert_close(scored.per_image, torch.tensor([0.9, 0.0, 0.0]))
    assert math.isclose(scored.mean, 0.3, abs_tol=1e-6) and math.isclose(scored.raw_mean_found, 0.45, abs_tol=1e-6)
    assert math.isclose(scored.detection_rate, 2 / 3, abs_tol=1e-6) and math.isclose(scored.ceiling, 0.8, abs_tol=1e-6)
    assert scored.calibrated_per_image[1] == 0 and math.isnan(scored.copying[1])


def test_the_calibrated_scale_runs_from_strangers_to_the_persons_own_photographs():
    references, strangers = around(axis(0), 40, 0.8, 1), around(0.5 * axis(0) + axis(1), 40, 0.8, 2)
    own = score_likeness(around(axis(0), 400, 0.8, 3), yes(400), references, strangers)
    others = score_likeness(around(0.5 * axis(0) + axis(1), 400, 0.8, 4), yes(400), references, strangers)
    assert own.floor > 0.1 and abs(own.calibrated - 1) < 0.1 and abs(others.calibrated) < 0.1
    none = score_likeness(references, ~yes(40), references, strangers)
    assert none.calibrated == 0 and none.raw_mean_found is None and none.mean == 0


def test_a_reference_is_never_compared_with_itself():
    references = unit([1, 0, 0], [0, 1, 0], [0, 0, 1])
    assert score_likeness(references, yes(3), references).ceiling == 0


@pytest.mark.parametrize("strangers", [None, unit([0, 1, 0])])
def test_one_reference_gives_raw_scores_only(strangers):
    scored = score_likeness(unit([1, 0, 0]), yes(1), unit([1, 0, 0]), strangers)
    assert scored.mean == 1 and scored.ceiling is None and scored.calibrated is None and scored.calibrated_per_image is None
    assert scored.copying.tolist() == [1.0] and scored.copies == [0]  # whatever is typical, the photograph itself is a copy


def test_no_calibration_where_the_recognizer_cannot_tell_the_person_from_strangers():
    row = unit([1, 2, 3])
    assert score_likeness(row, yes(1), row.repeat(3, 1), row).calibrated is None


def test_a_copied_photograph_is_noticed_and_a_fresh_picture_is_not():
    references, fresh = around(axis(0), 6, 0.8, 5), around(axis(0), 6, 0.8, 6)
    assert score_likeness(references, yes(6), references).copies == list(range(6))
    assert score_likeness(fresh, yes(6), references).copies == []


def test_the_way_from_another_photograph_to_the_very_one():
    photos = unit([1, 0, 0], [0.6, 0.8, 0])
    angle = math.acos(0.8)  # a cosine of 0.8 is half of the way from 0.6 to 1
    generated = unit([math.cos(angle), 0, math.sin(angle)], [1, 0, 0], [0.6, 0, 0.8], [0, 0, 1], [1, 0, 0])
    way = copying(generated, torch.tensor([True, True, True, True, False]), photos)
    torch.testing.assert_close(way[:4], torch.tensor([0.5, 1.0, 0.0, -1.5]))
    assert way[4].isnan()


def test_a_photograph_among_alike_ones_is_no_sooner_copied():
    """The person whose own photographs are alike needs more likeness for a warning; a photograph given twice says nothing of that."""
    close, far = unit([1, 0, 0], [0.9, 0.43589, 0]), unit([1, 0, 0], [0.4, 0.91652, 0])
    picture = unit([0.85, 0, 0.52678])
    assert float(copying(picture, yes(1), far)) > COPYING_WARNING > 0 > float(copying(picture, yes(1), close))
    torch.testing.assert_close(copying(picture, yes(1), far), copying(picture, yes(1), far.repeat(2, 1)))
    torch.testing.assert_close(copying(picture, yes(1), far[:1], far[1:]), copying(picture, yes(1), far[:1], far))


def test_likeness_to_the_training_photograph_beyond_likeness_to_the_person():
    training, held_out = around(axis(0), 1, 0.8, 7), around(axis(0), 8, 0.8, 8)
    fresh = copy_paste(around(axis(0), 50, 0.8, 9), yes(50), training, held_out)
    copied = copy_paste(training, yes(1), training, held_out)
    assert copied.item() > 0.25 > fresh.mean().abs()
    assert copy_paste(training, ~yes(1), training, held_out).isnan().all()


@pytest.mark.parametrize("generated, references, sentence", [
    (torch.zeros(0, 3), unit([1, 0, 0]), "no picture to score"), (unit([1, 0, 0]), torch.zeros(0, 3), "no reference photograph"),
    (unit([1, 0, 0]), unit([1, 0]), "2 and 3 numbers.*different recognizers")])
def test_what_cannot_be_scored_is_said(generated, references, sentence):
    with pytest.raises(EvaluationError, match=sentence):
        score_likeness(generated, yes(len(generated)), references)


def test_rows_leave_out_what_is_not_known():
    import csv
    import io

    scored = score_likeness(unit([1, 0], [0, 1]), torch.tensor([True, False]), unit([0.6, 0.8]))
    text = csv_text([*likeness_rows(scored, ["a, b.png", "c.png"]), {"picture": "d", "prompt": "x\ny"}])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["picture"] for row in rows] == ["a, b.png", "c.png", "d"] and rows[2]["prompt"] == "x\ny"
    assert float(rows[0]["likeness"]) == 0.6 and rows[0]["calibrated"] == rows[1]["copying"] == "" and rows[1]["face_found"] == "0"


def test_a_contact_sheet_holds_every_picture_whatever_its_size():
    red, green = torch.zeros(20, 40, 3), torch.zeros(500, 100, 3)
    red[..., 0], green[..., 1] = 1.0, 1.0
    sheet = contact_sheet([[red, green], [green]], [["red", "a very long caption " * 9], ["green"]], side=64)

    def seen(part, channel):
        return bool(((part[..., channel] == 1) & (part.sum(-1) == 1)).any())

    middle = sheet.shape[1] // 2
    top, bottom = sheet[: sheet.shape[0] // 2], sheet[sheet.shape[0] // 2 :]
    assert seen(top[:, :middle], 0) and seen(top[:, middle:], 1) and seen(bottom[:, :middle], 1)
    assert not seen(top[:, middle:], 0) and not seen(bottom, 0)
    with pytest.raises(EvaluationError, match="no picture"):
        contact_sheet([[]])
