"""``idea-engine check`` on the demo model and on a reduced Stable Diffusion, cut short: the way to the advice, not the advice."""
import json
import re
import shutil
from pathlib import Path

import pytest

from idea_engine.judging.base_advice import advised_rate
from tiny_pipelines import tiny_pipeline

ROOT = Path(__file__).resolve().parents[2]
PHOTO = ROOT / "example_workflows" / "anna.png"
QUICK = ("--prompts", 1, "--steps", 2)


def test_the_demo_model_is_checked(cli):
    said = cli.run("check", "--model", "demo", "--photos", PHOTO, "-o", "check", "--recipes", "balanced,fast", "--train-steps", 1, *QUICK)
    assert len(re.findall(r"(balanced|fast) × (0\.5|1|2): likeness -?\d\.\d\d, prompt \d\.\d\d", said)) == 6
    assert "cut short" in said and re.search(r"^balanced: .*rate", said, re.M)
    kept = json.loads((cli.folder / "check" / "check.json").read_text(encoding="utf-8"))
    assert list(kept["recipes"]) == ["balanced", "fast"] and [one["rate"] for one in kept["recipes"]["fast"]["tried"]] == [0.5, 1.0, 2.0]
    assert kept["family"] == "sd1" and kept["width"] == 128 and kept["calibrated"] is True
    text = (cli.folder / "check" / "check.json").read_text(encoding="utf-8")
    assert "anna" not in text and "data:" not in text and len(text) < 5000  # no name, no picture, no embedding
    page = (cli.folder / "check" / "report.html").read_text(encoding="utf-8")
    assert page.count("<img") == 1 and "fast × 2" in page and "cut short" in page
    assert (cli.folder / "check" / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_advice_is_kept_for_the_model_and_training_follows_it(cli):
    cli.run("check", "--model", "demo", "--photos", PHOTO, "-o", "check", "--recipes", "fast", "--keep", "idea", *QUICK)
    kept, = (cli.folder / "idea" / "bases").iterdir()
    advice = json.loads(kept.read_text(encoding="utf-8"))
    assert kept.stem == advice["base"] and advised_rate([kept.parent], kept.stem, "fast") == advice["recipes"]["fast"]["rate"]
    advice["recipes"]["fast"]["rate"] = 2.0
    kept.write_text(json.dumps(advice), encoding="utf-8")
    arguments = ("--model", "demo", "--photos", PHOTO, "--recipe", "fast", "--steps", 1)
    assert "at 2 times the recipe's rate" in cli.run("train", *arguments, "--bases", "idea/bases", "-o", "hot.safetensors")
    assert "times the recipe's rate" not in cli.run("train", *arguments, "-o", "plain.safetensors")


@pytest.mark.parametrize("family", ["sd1", "sd2-v", "sdxl"])
def test_a_reduced_stable_diffusion_is_checked(cli, family):
    """What it draws is noise: the check says that no rate made the person, rather than advising one."""
    tiny_pipeline(family, cli.folder / "made").save_pretrained(cli.folder / "model")
    shutil.copy(PHOTO, cli.folder / "anna.png")
    said = cli.run(
        "check", "--model", "model", "--face-pack", ROOT / "portrait_world" / "assets" / "face_pack", "--detection-size", 320, "--photos", "anna.png",
        "-o", "check", "--recipes", "fast", "--train-steps", 1, "--size", "64x64", *QUICK,
    )
    assert "fast: no rate made the person" in said or "faces 100%" in said
    assert "flatters" in said and "one photograph only" in said
    assert json.loads((cli.folder / "check" / "check.json").read_text(encoding="utf-8"))["family"] == family.split("-")[0]


def test_mistakes_are_sentences(cli):
    assert "expected some of" in cli.fail("check", "--model", "demo", "--photos", PHOTO, "--recipes", "paper")
    assert "Leave one of them out" in cli.fail("check", "--model", "demo", "--photos", PHOTO, "--train-steps", 1, "--keep", "idea")
    assert "nothing to check" in cli.fail("check", "--model", "demo", "--photos", PHOTO, "--prompts", 0)
