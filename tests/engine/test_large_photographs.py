"""Photographs of a camera: found on a small copy, measured on the original, in little time and memory."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from drawn_faces import drawn_face
from idea_engine.faces.align import align_face
from idea_engine.faces.embed import embed_faces, search_photos
from idea_engine.faces.insightface_encoder import load_face_model
from idea_engine.faces.mask import face_mask, face_masks
from idea_engine.faces.photo import check_photo, small_copy, to_pixels
from idea_engine.faces.preview import LONGEST, draw_preview

ROOT = Path(__file__).resolve().parents[2]
PORTRAIT_PACK = ROOT / "portrait_world" / "assets" / "face_pack"


@pytest.fixture(scope="module")
def encoder():
    return load_face_model(PORTRAIT_PACK, "CPU", 320)


@pytest.fixture(scope="module")
def portrait():
    """(3000, 2400, 3): a drawn person on a wall, the face about 900 pixels high."""
    from portrait_world.drawing.portrait import render
    from portrait_world.world.people import person
    from portrait_world.world.portrayal import photograph

    drawn = torch.from_numpy(render(person("validation", 0), photograph(np.random.default_rng(0)), 256)).float() / 255
    large = torch.nn.functional.interpolate(drawn.permute(2, 0, 1)[None], size=(1600, 1600), mode="bilinear")[0].permute(1, 2, 0)
    wall = torch.full((3000, 2400, 3), 0.4)
    wall[500:2100, 300:1900] = large
    return wall


def test_a_large_photograph_gives_the_embedding_of_the_whole(encoder, portrait):
    """The detector, asked with all of its pixels, sees the same."""
    whole = max(encoder.detect(to_pixels(portrait), encoder.detection_size), key=lambda face: face.area)
    found, = search_photos(encoder, [portrait])
    chosen = found.faces[found.chosen]
    assert np.abs(chosen.box - whole.box).max() < 0.5 and np.abs(chosen.landmarks - whole.landmarks).max() < 0.5
    expected = encoder.embed([align_face(to_pixels(portrait), whole.landmarks)])
    assert np.abs(embed_faces(encoder, [portrait]).vectors.numpy() - expected).max() < 1e-3


@pytest.mark.parametrize("turns", [1, 3])
def test_a_large_photograph_on_its_side_is_found_where_it_is(encoder, portrait, turns):
    upright, = search_photos(encoder, [portrait])
    lying, = search_photos(encoder, [torch.rot90(portrait, turns, (0, 1))])
    there, here = upright.faces[upright.chosen], lying.faces[lying.chosen]
    x, y = there.centre
    expected = {1: (y, 2400 - x), 3: (3000 - y, x)}[turns]
    assert np.hypot(here.centre[0] - expected[0], here.centre[1] - expected[1]) < 0.15 * np.sqrt(there.area)
    assert 0.7 < here.area / there.area < 1.4


def test_a_preview_is_small_and_its_box_lies_on_the_face(encoder, portrait):
    found = search_photos(encoder, [portrait])
    shown, = draw_preview([portrait], found)
    assert max(shown.shape[:2]) == LONGEST and shown.shape[0] / shown.shape[1] == pytest.approx(3000 / 2400, abs=0.01)
    green = ((shown - torch.tensor([64, 220, 96]) / 255).abs().sum(-1) < 0.05).nonzero().float()
    box = found[0].faces[found[0].chosen].box * LONGEST / 3000
    left, top = green.min(0).values.flip(0).tolist()
    assert abs(left - box[0]) < 8 and -8 < box[1] - top < 80  # the number stands on the box
    assert (green.max(0).values.flip(0) - torch.from_numpy(box[2:])).abs().max() < 8
    assert small_copy(shown, LONGEST) is shown


def test_pixels_are_rounded_as_ever():
    photo = torch.rand(37, 53, 3, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(to_pixels(photo), (photo * 255.0).round().to(torch.uint8).numpy())
    assert check_photo(photo, "x").data_ptr() == photo.data_ptr()


def test_masks_of_one_size_lie_in_memory_as_a_batch():
    _, marks = drawn_face(0)
    landmarks, boxes = torch.from_numpy(np.stack([marks, marks + 9])).float(), torch.tensor([[60.0, 60, 260, 260]] * 2)
    one, two = face_masks(boxes, landmarks, [(320, 320)] * 2)
    assert torch.equal(one, face_mask(boxes[0], landmarks[0], 320, 320)) and two.data_ptr() == one.data_ptr() + 4 * one.numel()
    assert [tuple(mask.shape) for mask in face_masks(boxes, landmarks, [(320, 320), (300, 310)])] == [(320, 320), (300, 310)]


_MEASURE = """
import resource, sys, time, json
import numpy as np, torch
from idea_engine.faces.embed import embed_faces, search_photos
from idea_engine.faces.preview import draw_preview
from idea_engine.faces.insightface_encoder import load_face_model
from idea_engine.training.pictures import check_photo
from portrait_world.world.people import person
from portrait_world.drawing.portrait import render
from portrait_world.world.portrayal import photograph

encoder = load_face_model(sys.argv[1], "CPU", 320)
drawn = torch.from_numpy(render(person("validation", 0), photograph(np.random.default_rng(0)), 256)).float() / 255
photo = torch.full((6000, 8000, 3), 0.4)
photo[1000:4072, 2000:5072] = drawn.repeat_interleave(12, 0).repeat_interleave(12, 1)
search_photos(encoder, [drawn])
unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
before, started = peak(), time.process_time()
checked = check_photo(photo, "it")
found = search_photos(encoder, [checked])
face = embed_faces(encoder, [checked], found=found)
draw_preview([checked], found)
print(json.dumps({"MB": peak() - before, "seconds": time.process_time() - started, "faces": len(face)}))
"""


def test_48_megapixels_take_300_megabytes_beside_the_photograph():
    ran = subprocess.run([sys.executable, "-c", _MEASURE, str(PORTRAIT_PACK)], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["faces"] == 1
    assert found["MB"] <= 300, found
