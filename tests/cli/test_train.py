"""``idea-engine train``: one person, a folder of people, stopped and killed and gone on with."""
import re
import shutil
import signal
import sys
import time
from functools import partial

import pytest
import torch
from PIL import Image

from idea_engine.identity.file import load_identity, save_identity
from idea_engine.identity.operations import named_tensors
from idea_engine.methods import RECIPES

PATIENCE = 300  # seconds, on a machine that is busy
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


@pytest.fixture
def train_here(tmp_path, capsys, monkeypatch):
    """Runs ``idea-engine train`` on the demo model in this process; → its exit code, what it said and what it complained of."""
    from idea_cli import main

    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments):
        code = main(["train", "--model", "demo", "--device", "cpu", *map(str, arguments)])
        return code, *capsys.readouterr()

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_trains(train_here, anna_photo, recipe):
    assert train_here("--steps", 2, "--batch", 2, "--recipe", recipe, "--photos", anna_photo, "-o", "me")[0] == 0
    identity = load_identity("me.safetensors")
    assert identity.metadata.method == recipe and len(identity.metadata.config["losses"]) == 2


def without_masks(train, *arguments, masks, **others):
    return train(*arguments, masks=None, **others)


def test_the_default_recipe_looks_at_the_face_that_was_found(train_here, anna_photo, monkeypatch, caplog):
    from idea_engine.training import loop

    assert train_here(*QUICK[2:], "--photos", anna_photo, "-o", "face")[0] == 0 and "no face masks" not in caplog.text
    monkeypatch.setattr(loop, "train", partial(without_masks, loop.train))
    assert train_here(*QUICK[2:], "--photos", anna_photo, "-o", "whole")[0] == 0 and "no face masks" in caplog.text
    face, whole = (load_identity(f"{name}.safetensors").metadata.config["losses"] for name in ("face", "whole"))
    assert abs(face[0] - whole[0]) > 1e-3


def test_stages_attention_and_captions_are_the_trainings(train_here, anna_photo):
    more = ("--recipe", "fast", "--stages", 2, "--attention", "face-word", "--caption", "in a forest")
    assert train_here(*QUICK[2:], "--photos", anna_photo, *more, "-o", "me")[0] == 0
    identity = load_identity("me.safetensors")
    config = identity.metadata.config
    assert len(identity.stages) == 2 and config["attention"] == "face_word" and list(config["captions"]) == ["in a forest"]
    code, _, complained = train_here("--photos", anna_photo, "--caption", "a", "--caption", "b", "-o", "other")
    assert code == 2 and "2 captions for 1 photographs" in complained


@pytest.fixture
def somebody(tmp_path, anna_photo):
    """A folder of people with Anna alone, and where her identity goes."""
    folder = tmp_path / "people"
    folder.mkdir()
    shutil.copy(anna_photo, folder / "anna.png")
    return folder, tmp_path / "out" / "anna.safetensors"


def test_who_was_learned_otherwise_is_left_as_it_is_and_said_so(train_here, somebody):
    folder, anna = somebody
    settings = ("--people", folder, "-o", anna.parent, "--batch", 1)
    assert train_here(*settings, "--steps", 1)[0] == 0
    before = anna.read_bytes()
    code, said, _ = train_here(*settings, "--steps", 1)
    assert code == 0 and "skipped: anna" in said
    for other, sentence in ((("--steps", 2), "steps 1 instead of 2"), (("--steps", 1, "--recipe", "best"), "recipe balanced instead of best"),
                            (("--steps", 1, "--caption", "smiling"), "other photographs, captions")):
        code, _, complained = train_here(*settings, *other)
        assert code == 2 and sentence in complained and "-o" in complained
    with Image.open(folder / "anna.png") as photo:
        photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "anna.png")
    code, _, complained = train_here(*settings, "--steps", 1)
    assert code == 2 and "other photographs" in complained and anna.read_bytes() == before


def test_leftovers_of_other_settings_go_when_the_person_is_finished(train_here, somebody):
    folder, anna = somebody
    anna.parent.mkdir()
    stale, *others = (anna.with_name(name) for name in (".anna-0123456789ab.partial", ".anna-maria-0123456789ab.partial", ".anna-notes.partial"))
    for file in (stale, *others):
        file.write_bytes(b"")
    assert train_here("--people", folder, "-o", anna.parent, "--batch", 1, "--steps", 1)[0] == 0
    assert {path.name for path in anna.parent.iterdir()} == {anna.name, *(path.name for path in others)}


def test_nobody_is_learned_by_two_processes_at_once(train_here, somebody):
    from idea_cli.people import people_in

    folder, anna = somebody
    settings = ("--people", folder, "-o", anna.parent, "--batch", 1, "--steps", 1)
    (person,) = people_in(folder, anna.parent)
    with person.held() as mine:
        code, said, _ = train_here(*settings)
        assert mine and code == 0 and "anna: another process is at it" in said and not anna.exists()
        code, _, complained = train_here("--photos", folder / "anna.png", "-o", anna)
        assert code == 2 and "Another process is learning" in complained and "-o" in complained
    anna.with_name(".anna.lock").write_bytes(b"")  # of a process that was killed
    assert train_here(*settings)[0] == 0 and [path.name for path in anna.parent.iterdir()] == [anna.name]


def test_a_file_that_cannot_be_used_does_not_stop_the_others(train_here, somebody, anna_photo):
    folder, anna = somebody
    shutil.copy(anna_photo, folder / "aa.png")
    anna.with_name(".aa.lock").mkdir(parents=True)  # the system refuses to open it
    code, _, complained = train_here("--people", folder, "-o", anna.parent, "--batch", 1, "--steps", 1)
    assert code == 2 and re.search("aa was not learned: .* cannot be used", complained) and anna.is_file()


@pytest.fixture
def tiny(tmp_path, demo_pack):
    """The options of a training whose steps take no time."""
    from tiny_pipelines import tiny_pipeline

    tiny_pipeline("sd1", tmp_path / "made").save_pretrained(tmp_path / "models" / "tiny")
    return ("--model", tmp_path / "models" / "tiny", "--face-pack", demo_pack, "--detection-size", 320, "--resolution", 64, "--batch", 1, "--save-every", 0)


def partial_files(folder):
    return list(folder.glob(".*.partial"))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL] if sys.platform != "win32" else [])
def test_a_training_that_is_stopped_or_killed_goes_on_to_the_very_same_identity(cli, tiny, anna_photo, how):
    settings = ("train", *tiny, "--steps", 40, "--photos", anna_photo)
    process = cli.start(*settings, "-o", "anna.safetensors")
    deadline = time.monotonic() + PATIENCE
    while not partial_files(cli.folder) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(how)
    said, complained = process.communicate(timeout=PATIENCE)
    assert process.returncode == (130 if how == signal.SIGTERM else -how) and not (cli.folder / "anna.safetensors").exists(), complained
    assert "Traceback" not in complained and (how == signal.SIGKILL or "goes on from here" in complained)
    resumed = int(re.search(r"resumed at step (\d+)", cli.run(*settings, "-o", "anna.safetensors"))[1])
    assert resumed >= 1 and partial_files(cli.folder) == []
    cli.run(*settings, "-o", "whole.safetensors")
    same(cli.folder / "anna.safetensors", cli.folder / "whole.safetensors")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_folder_that_was_killed_goes_on_with_the_second_person(cli, tiny, people):
    settings = ("train", *tiny, "--steps", 40, "--people", people)
    process = cli.start(*settings, "-o", "killed")
    out, deadline = cli.folder / "killed", time.monotonic() + PATIENCE
    while not (out / "Cleo Ray.safetensors").exists() or not list(out.glob(".anna-*.partial")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    process.kill()
    process.communicate()
    first = (out / "Cleo Ray.safetensors").stat().st_mtime_ns
    said = cli.run(*settings, "-o", "killed")
    assert "skipped: Cleo Ray\n" in said and re.search(r"<anna>, 40 steps, resumed at step \d+", said)
    assert (out / "Cleo Ray.safetensors").stat().st_mtime_ns == first
    cli.run(*settings, "-o", "whole")
    assert sorted(path.name for path in out.iterdir()) == ["Cleo Ray.safetensors", "anna.safetensors", "ben.safetensors"]
    for file in out.iterdir():
        same(file, cli.folder / "whole" / file.name)


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
    (("--model", "nowhere", "--photos", "nowhere.png"), "There is no photograph nowhere.png"),  # said before anything is loaded
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


def test_a_full_disk_costs_the_file_and_not_the_training(cli, anna_photo, monkeypatch, capsys):
    """The same command, after room was made, in a new process."""
    from idea_cli import main
    from idea_engine.identity import file as identity_file

    def full(path, write):
        raise OSError(28, "No space left on device")

    command = ["train", "--model", "demo", "--photos", str(anna_photo), "--steps", "3", "-o", str(cli.folder / "anna.safetensors")]
    with monkeypatch.context() as patch:
        patch.setattr(identity_file, "atomic_write", full)
        assert main(command) == 2
    said = capsys.readouterr().err
    assert "No space left on device" in said and "The whole training is kept: the same command has only to write the file." in said
    assert [file.suffix for file in cli.folder.iterdir()] == [".partial"]
    assert "3 steps, resumed at step 3" in cli.run(*command)
    assert [file.name for file in cli.folder.iterdir()] == ["anna.safetensors"]
