"""The sheet of a demo run says what each picture is, and its likeness tells the person from strangers."""
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launcher.portrait import FROM_DEMO, with_demo_model, with_photo
from portrait_world.drawing.anna import anna, photograph
from portrait_world.drawing.portrait import render
from portrait_world.judging.portrait_sheet import TILE, draw_sheet, judge, main, short_caption
from portrait_world.world import captions
from portrait_world.world.people import person
from portrait_world.world.portrayal import Shot

BEACH = Shot(scene="beach", expression="smiling", colour="red")


@pytest.mark.parametrize("prompt, short", [
    ("a photo of <anna> smiling on a beach", "smiling on a beach"), ("a photo of <anna> person, in a forest", "in a forest"),
    ("an oil painting of <anna> in a studio", "an oil painting, in a studio"), ("a photo of <anna>", "a photo of <anna>"), ("a cat", "a cat")])
def test_captions_say_what_the_prompt_adds(prompt, short):
    assert short_caption(prompt) == short


def test_every_picture_lies_unchanged_on_the_sheet():
    tiles = [(Image.new("RGB", (TILE, TILE), (20 * number, 200, 10)), f"scene {number}") for number in range(8)]
    pixels = np.asarray(draw_sheet(Image.new("RGB", (64, 64), (250, 0, 250)), tiles, "title", "subtitle")).reshape(-1, 3)
    for number in range(8):
        assert (pixels == (20 * number, 200, 10)).all(1).sum() == TILE * TILE
    assert (pixels == (250, 0, 250)).all(1).sum() > 4 * TILE * TILE


def test_the_judge_puts_the_person_near_one_and_strangers_near_zero():
    photo = Image.fromarray(photograph())
    own = [Image.fromarray(render(anna(), shot)) for shot in (BEACH, Shot(scene="library"), Shot(scene="city", yaw=-0.3))]
    strangers = [Image.fromarray(render(person("validation", number), BEACH)) for number in range(6)]
    nobody = [Image.new("RGB", (128, 128), "gray")]
    found = judge(photo, True, own + strangers + nobody)["likeness_by_picture"]
    assert min(found[:3]) > max(found[3:9]) and np.mean(found[:3]) > 0.6 and abs(np.mean(found[3:9])) < 0.4
    assert abs(found[9]) < 0.3  # no face: cosine 0
    loose = judge(photo, False, own + strangers)
    assert np.mean(loose["likeness_by_picture"][:3]) > np.mean(loose["likeness_by_picture"][3:]) and "not calibrated" in loose["likeness_scale"]


def test_a_request_becomes_a_sheet_and_a_sheet_a_thumbnail(tmp_path, capsys):
    for name, picture in (("photo.png", photograph()), ("scene.png", render(anna(), BEACH))):
        Image.fromarray(picture).save(tmp_path / name)
    request = {"photo": str(tmp_path / "photo.png"), "anna": False, "sheet": str(tmp_path / "sheet.png"),
               "pictures": [{"path": str(tmp_path / "scene.png"), "caption": "a photo of <anna> on a beach"}] * 8}
    (tmp_path / "request.json").write_text(json.dumps(request), encoding="utf-8")
    assert main([str(tmp_path / "request.json")]) == 0
    assert json.loads(capsys.readouterr().out)["likeness"] > 0
    assert main(["--thumbnail", str(tmp_path / "sheet.png"), str(tmp_path / "thumbnail.jpg")]) == 0
    with Image.open(tmp_path / "sheet.png") as sheet, Image.open(tmp_path / "thumbnail.jpg") as thumbnail:
        assert thumbnail.format == "JPEG" and thumbnail.width / thumbnail.height == pytest.approx(sheet.width / sheet.height, rel=0.01)


def test_the_scenes_of_workflow_0_are_words_the_world_knows():
    saved = json.loads(Path(FROM_DEMO).read_text(encoding="utf-8"))
    prompts = [node["widgets_values"][0] for node in saved["nodes"] if node["type"] == "CLIPTextEncode" and node["widgets_values"][0]]
    assert len(prompts) == 8 == len(set(prompts))
    for prompt in prompts:
        assert "<anna>" in prompt and set(prompt.replace("<anna>", "").split()) <= captions.vocabulary()


def test_a_photograph_of_ones_own_takes_the_place_of_the_shipped_one():
    graph = {"1": {"class_type": "IDEA_LoadDemoModel", "inputs": {}}, "2": {"class_type": "IDEA_FaceEmbed", "inputs": {"image": ["1", 4], "index": 0}},
             "3": {"class_type": "KSampler", "inputs": {"model": ["1", 0]}}}
    changed = with_photo(graph, "me.png")
    assert changed["4"] == {"class_type": "LoadImage", "inputs": {"image": "me.png"}} and changed["2"]["inputs"] == {"image": ["4", 0], "index": 0}
    assert changed["3"] == graph["3"] and graph["2"]["inputs"]["image"] == ["1", 4]


def test_the_demo_model_stands_for_a_checkpoint_loader():
    graph = {"1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "x"}}, "2": {"class_type": "EmptyLatentImage", "inputs": {"width": 512}}}
    changed = with_demo_model(graph)
    assert changed["1"] == {"class_type": "IDEA_LoadDemoModel", "inputs": {}} and changed["2"]["inputs"] == {"width": 128, "height": 128}
    assert graph["1"]["class_type"] == "CheckpointLoaderSimple"
