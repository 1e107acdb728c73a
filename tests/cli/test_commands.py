"""``idea-engine embed | generate | inspect`` and the help."""
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from idea_engine.identity.file import load_identity, save_identity
from tiny_identities import random_identity
from tiny_pipelines import tiny_pipeline

COMMANDS = ("embed", "train", "generate", "inspect", "evaluate", "convert-faceclip")


def test_the_help_teaches(cli):
    said = cli.run("--help")
    assert all(re.search(rf"^    {command}\b", said, re.M) for command in COMMANDS) and "without any download" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(cli, command):
    from idea_cli import parser

    said = cli.run(command, "--help")
    assert f"idea-engine {command}" in said.split("example")[1]
    (commands,) = [action for action in parser()._actions if action.dest == "command"]
    unexplained = [action.option_strings for action in commands.choices[command]._actions if not action.help]
    assert unexplained == []


def test_faces_are_listed_and_nothing_is_stored_unasked(cli, anna_photo, demo_pack):
    said = cli.run("embed", anna_photo, "--face-pack", demo_pack, "--detection-size", 320)
    assert "1 face" in said and "← this one" in said and "recognizer: rec_portrait" in said
    assert list(cli.folder.iterdir()) == []


def test_the_embedding_is_stored_when_asked_for(cli, anna_photo, demo_pack):
    from safetensors.torch import load_file

    said = cli.run("embed", anna_photo, anna_photo, "--face-pack", demo_pack, "-o", "anna", "--preview", "seen")
    assert "biometric" in said and "alike: cosine 1.00" in said
    assert abs(load_file(cli.folder / "anna.safetensors")["face.embedding"].norm() - 1) < 1e-5
    assert Image.open(cli.folder / "seen" / "anna.png").size == (512, 512)


def test_the_same_seed_gives_the_same_picture_and_nothing_is_overwritten(cli, anna_file):
    draw = ("generate", "--model", "demo", "--identity", anna_file, "--steps", 2, "-o", "p", "--prompt", "a photo of <anna> on a beach")
    cli.run(*draw, "--count", 2)
    cli.run(*draw, "--seed", 1)
    pictures = {path.name: np.asarray(Image.open(path)) for path in (cli.folder / "p").iterdir()}
    assert sorted(pictures) == ["0.png", "1-2.png", "1.png"]
    assert (pictures["1.png"] == pictures["1-2.png"]).all() and (pictures["0.png"] != pictures["1.png"]).any()
    assert Image.open(cli.folder / "p" / "0.png").text["prompt"] == "a photo of <anna> on a beach"


@pytest.mark.parametrize("family", ("sd1", "sdxl"))
def test_two_people_on_a_model_of_ones_own(cli, tmp_path, family):
    from idea_engine.backends.diffusers import DiffusersBackend

    pipe = tiny_pipeline(family, tmp_path / "made")
    pipe.save_pretrained(tmp_path / "model")
    backend = DiffusersBackend(pipe)
    for name, seed in (("anna", 1), ("ben", 2)):
        save_identity(random_identity(backend, f"<{name}>", seed=seed), tmp_path / name)
    both = ("--identity", "anna.safetensors", "--identity", "ben.safetensors", "--steps", 2, "--size", "64x128")
    cli.run("generate", "--model", "model", *both, "--prompt", "<anna> and <ben>", "--prompt", "<ben>", "-o", "p")
    cli.run("generate", "--model", "model", *both, "--strength", 0, "--prompt", "<anna> and <ben>", "-o", "off")
    assert sorted(path.name for path in (cli.folder / "p").iterdir()) == ["1-0.png", "2-0.png"]
    on, off = (np.asarray(Image.open(cli.folder / path)) for path in ("p/1-0.png", "off/0.png"))
    assert on.shape == (128, 64, 3) and (on != off).any()


def test_a_file_says_what_it_is(cli, anna_file):
    said, found = cli.run("inspect", anna_file), json.loads(cli.run("inspect", anna_file, "--json"))
    assert re.search("trigger +<anna>", said) and "Stable Diffusion 1.x" in said and re.search("face stored +no", said)
    assert found["trigger"] == "<anna>" and found["tensors"]["clip_l"] == list(load_identity(anna_file).tokens["clip_l"].shape)


@pytest.mark.parametrize("arguments, sentence", [
    (("inspect", "nowhere"), "There is no file nowhere"),
    (("inspect", "text.txt"), "truncated or not a safetensors file"),
    (("embed", "nowhere", "--face-pack", "PACK"), "There is no photograph nowhere"),
    (("embed", "empty", "--face-pack", "PACK"), "holds no picture"),
    (("embed", "grey.png", "--face-pack", "PACK"), "No face was found"),
    (("embed", "grey.png", "--face-pack", "empty"), "No complete face pack"),
    (("generate", "--model", "demo", "--identity", "ANNA", "--prompt", "a cat"), "mentions none of <anna>"),
    (("generate", "--model", "demo", "--identity", "ANNA", "--prompt", "<anna>", "--size", "100x100"), "--size is 100x100, expected"),
    (("generate", "--model", "demo", "--identity", "ANNA", "--prompt", "<anna>", "--strength", "5"), "--strength is 5"),
    (("generate", "--model", "demo", "--identity", "ANNA", "--identity", "ANNA", "--prompt", "<anna>"), "Two identities answer to <anna>"),
    (("generate", "--model", "empty", "--prompt", "a cat"), "empty cannot be loaded.*whole diffusers folder"),
    (("generate", "--model", "text.txt", "--prompt", "a cat"), "text.txt cannot be loaded"),
    (("generate", "--model", "demo", "--identity", "OTHER", "--prompt", "<anna>"), "was made for .*Load a checkpoint of the identity's family")])
def test_a_mistake_ends_in_a_sentence(cli, anna_file, demo_pack, arguments, sentence):
    from idea_engine.backends.family import ModelFamily
    from idea_engine.identity.identity import Identity, IdentityMetadata

    (cli.folder / "text.txt").write_text("no model, and long enough to have a header", encoding="utf-8")
    (cli.folder / "empty").mkdir()
    Image.new("RGB", (200, 200), "grey").save(cli.folder / "grey.png")
    other = Identity(ModelFamily("sd2", {"clip_h": 1024}), {"clip_h": torch.randn(2, 1024)}, IdentityMetadata("<anna>", "imported", "sd2"))
    places = {"PACK": demo_pack, "ANNA": anna_file, "OTHER": save_identity(other, cli.folder / "other")}
    assert re.search(sentence, cli.fail(*(places.get(argument, argument) for argument in arguments)))


def test_a_note_cannot_look_like_a_line_of_ours(cli, tmp_path):
    """Escape sequences and ends of lines of a foreign file; 'face stored  no' could be forged."""
    import torch

    from idea_engine.backends.family import ModelFamily
    from idea_engine.identity.file import save_identity
    from idea_engine.identity.identity import Identity, IdentityMetadata

    note = "agreed\nface stored      no\x1b[1A\x1b[2K\u202e"
    meta = IdentityMetadata("<anna>", "fast", "sd1", recognizer=note, licence=note, config={"losses": ["a"], "steps": note}, consent=note)
    save_identity(Identity(ModelFamily("sd1", {"clip_l": 8}), {"clip_l": torch.zeros(2, 8)}, meta, face=torch.zeros(512)), tmp_path / "anna", store_face=True)
    said = cli.run("inspect", "anna.safetensors")
    assert len([line for line in said.splitlines() if line.startswith("face stored")]) == 1 and "yes (biometric data)" in said
    assert not {"\x1b", "\u202e"} & set(said) and said.count("\\x1b[1A") == 4


def test_forgetting_lists_what_it_removes(cli, anna_file):
    import shutil

    shutil.copy(anna_file, cli.folder / "anna.safetensors")
    assert cli.run("forget", "anna", "--dry-run") == "would remove anna.safetensors (identity)\n" and (cli.folder / "anna.safetensors").is_file()
    assert cli.run("forget", "<anna>") == "removed anna.safetensors (identity)\n" and not (cli.folder / "anna.safetensors").exists()
    assert cli.run("forget", "anna") == "Nothing of anna was found.\n"
    assert "no name of a person" in cli.fail("forget", "../anna") and "There is no folder" in cli.fail("forget", "anna", "--in", "nowhere")
