"""``idea-engine train``: one person, a folder of people, stopped and killed and gone on with."""
import re
import signal
import sys
import time

import pytest
import torch

from idea_engine.identity import named_tensors
from idea_engine.identity_file import load_identity, save_identity

QUICK = ("--model", "demo", "--steps", 3, "--batch", 2)


def same(a, b):
    left, right = named_tensors(load_identity(a)), named_tensors(load_identity(b))
    assert left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_one_photograph_becomes_one_file(cli, anna_photo):
    said = cli.run("train", *QUICK, "--photos", anna_photo, "--trigger", "<me>", "--consent", "I agreed", "-o", "me")
    identity = load_identity(cli.folder / "me.safetensors")
    assert "<me>, 3 steps" in said
    assert identity.trigger == "<me>" and identity.metadata.consent == "I agreed" and identity.face is None
    assert identity.metadata.recognizer and len(identity.metadata.config["losses"]) == 3
    assert [path.name for path in cli.folder.iterdir()] == ["me.safetensors"]


def test_previews_are_written_step_by_step_and_change_nothing_that_is_learned(cli, anna_photo):
    import numpy as np
    from PIL import Image

    settings = ("train", *QUICK[:2], "--steps", 10, "--batch", 2, "--photos", anna_photo, "-o")
    cli.run(*settings, "seen/anna", "--preview-every", 4)
    pictures = sorted((cli.folder / "seen" / "previews").iterdir())
    assert [path.name for path in pictures] == ["anna-04.png", "anna-08.png", "anna-10.png"]
    pixels = [np.asarray(Image.open(path)) for path in pictures]
    assert all(one.shape == (128, 128, 3) and one.std() > 10 for one in pixels) and (pixels[0] != pixels[2]).any()
    assert Image.open(pictures[0]).text["step"] == "4"
    cli.run(*settings, "unseen/anna")
    same(cli.folder / "seen" / "anna.safetensors", cli.folder / "unseen" / "anna.safetensors")
    assert [path.name for path in (cli.folder / "unseen").iterdir()] == ["anna.safetensors"]


def test_previews_of_several_people_lie_side_by_side_in_the_folder_that_was_named(cli, people):
    cli.run("train", *QUICK, "--people", people, "-o", "out", "--preview-every", 3, "--preview-dir", "looks")
    assert sorted(path.name for path in (cli.folder / "looks").iterdir()) == ["Cleo Ray-3.png", "anna-3.png", "ben-3.png"]


def partial_files(folder):
    return list(folder.glob(".*.partial"))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL] if sys.platform != "win32" else [])
def test_a_training_that_is_stopped_or_killed_goes_on_to_the_very_same_identity(cli, anna_photo, how):
    settings = ("train", "--model", "demo", "--steps", 60, "--batch", 2, "--photos", anna_photo)
    process = cli.start(*settings, "-o", "anna.safetensors")
    deadline = time.monotonic() + 120
    while not partial_files(cli.folder) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(how)
    said, complained = process.communicate(timeout=60)
    assert process.returncode == (130 if how == signal.SIGTERM else -how) and not (cli.folder / "anna.safetensors").exists(), complained
    assert "Traceback" not in complained and (how == signal.SIGKILL or "goes on from here" in complained)
    resumed = int(re.search(r"resumed at step (\d+)", cli.run(*settings, "-o", "anna.safetensors"))[1])
    assert resumed >= 10 and partial_files(cli.folder) == []
    cli.run(*settings, "-o", "whole.safetensors")
    same(cli.folder / "anna.safetensors", cli.folder / "whole.safetensors")


def test_a_folder_of_people_becomes_a_folder_of_identities_and_the_finished_are_skipped(cli, people):
    cli.run("train", *QUICK, "--people", people, "-o", "out")
    out = cli.folder / "out"
    triggers = {path.stem: load_identity(path).trigger for path in out.glob("*.safetensors")}
    assert triggers == {"anna": "<anna>", "ben": "<ben>", "Cleo Ray": "<cleo-ray>"}
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    (out / "ben.safetensors").write_bytes(b"cut short")
    said = cli.run("train", *QUICK, "--people", people, "-o", "out")
    assert "skipped: Cleo Ray, anna" in said and load_identity(out / "ben.safetensors").trigger == "<ben>"
    assert {name for name, when in before.items() if (out / name).stat().st_mtime_ns != when} == {"ben.safetensors"}


def test_somebody_without_a_face_does_not_stop_the_others(cli, people):
    from PIL import Image

    Image.new("RGB", (200, 200), "grey").save(people / "aa nobody.png")
    complained = cli.fail("train", *QUICK, "--people", people, "-o", "out")
    assert re.search("aa nobody was not learned: No face was found", complained)
    assert sorted(path.stem for path in (cli.folder / "out").glob("*.safetensors")) == ["Cleo Ray", "anna", "ben"]


@pytest.mark.skipif(sys.platform == "win32", reason="torch's launcher for several processes needs libuv there")
def test_two_processes_share_the_people(cli, people):
    launcher = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
                "--num_processes", "2", "--main_process_port", "0")
    said = cli.run("train", *QUICK, "--device", "cpu", "--people", people, "-o", "shared", launcher=launcher)
    assert len(re.findall("3 steps", said)) == 3
    cli.run("train", *QUICK, "--people", people, "-o", "alone")
    for name in ("anna", "ben", "Cleo Ray"):
        same(cli.folder / "shared" / f"{name}.safetensors", cli.folder / "alone" / f"{name}.safetensors")


@pytest.mark.parametrize("arguments, sentence", [
    (("--model", "demo", "--photos", "nowhere.png"), "There is no photograph nowhere.png"),
    (("--model", "nowhere", "--photos", "PHOTO", "--face-pack", "PACK"), "There is no model nowhere.*--allow-download"),
    (("--model", "nowhere", "--photos", "PHOTO"), "No face pack is given.*--face-pack"),
    (("--model", "demo", "--photos", "PHOTO", "--face-pack", "nowhere"), "nowhere is not a folder.*--face-pack"),
    (("--model", "demo", "--photos", "PHOTO", "--trigger", "two words"), "contains white space"),
    (("--model", "demo", "--photos", "PHOTO", "--device", "abacus"), "device abacus cannot be used"),
    (("--model", "demo", "--photos", "PHOTO", "--steps", "-1"), "--steps is -1, expected 0"),
    (("--model", "demo", "--photos", "PHOTO", "--resolution", "100"), "resolution is 100, expected a multiple of 8"),
    (("--model", "demo", "--photos", "PHOTO", "--preview-every", "-1"), "--preview-every is -1"),
    (("--model", "demo", "--photos", "PHOTO", "--preview-dir", "looks"), "none are asked for.*--preview-every"),
    (("--model", "demo", "--people", "nowhere"), "There is no folder nowhere"),
    (("--model", "demo"), "one of the arguments --photos --people is required"),
    (("--model", "demo", "--photos", "TEXT"), "cannot be read as a picture")])
def test_a_mistake_ends_in_a_sentence(cli, anna_photo, demo_pack, arguments, sentence):
    (cli.folder / "text.png").write_text("no picture", encoding="utf-8")
    places = {"PHOTO": anna_photo, "PACK": demo_pack, "TEXT": "text.png"}
    assert re.search(sentence, cli.fail("train", *(places.get(argument, argument) for argument in arguments)))


def test_nothing_is_overwritten(cli, anna_photo, anna_file):
    kept = save_identity(load_identity(anna_file), cli.folder / "anna")
    before = kept.read_bytes()
    assert "is there already" in cli.fail("train", *QUICK, "--photos", anna_photo, "-o", "anna.safetensors")
    assert kept.read_bytes() == before
