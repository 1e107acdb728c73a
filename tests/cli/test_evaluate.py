"""``idea-engine evaluate``: the whole protocol as a process, gone on with after a kill, and its traps."""
import csv
import json
import re
import shutil
import signal
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from idea_engine.identity.file import load_identity, save_identity

DRAW = ("--model", "demo", "--steps", 2)


@pytest.fixture(scope="session")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    path.write_text("# two\na photo of {tokens} on a beach\n{tokens} & <b>friends</b> in a city\n", encoding="utf-8")
    return path


def rows_of(folder):
    with (folder / "scores.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_protocol(cli, anna_file, anna_photo, prompts, clip_folder):
    cli.run("evaluate", *DRAW, "--identity", anna_file, "--trained-on", anna_photo, "--held-out", "demo", "--prompts", prompts, "--count", 2,
            "--clip", clip_folder, "-o", "report")
    folder = cli.folder / "report"
    rows, summary = rows_of(folder), json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    (scores,) = summary["scores"]
    assert summary["notes"] == [] and summary["facts"]["judge"] == "portrait world judge"
    assert len(rows) == scores["pictures"] == 4 and len({row["seed"] for row in rows}) == 4
    for row in rows:
        assert (folder / row["picture"]).is_file() and -1 <= float(row["prompt_score"]) <= 1
        if row["face_found"] == "0":
            assert float(row["likeness"]) == 0 == float(row["calibrated"])
    for name in ("likeness", "calibrated"):
        assert abs(scores[name] - sum(float(row[name]) for row in rows) / 4) < 1e-3
    assert scores["detection_rate"] == sum(int(row["face_found"]) for row in rows) / 4 and scores["floor"] < scores["ceiling"]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 4 + 6 and "http" not in page  # the pictures, Anna's six photographs, nothing from elsewhere
    assert "&lt;b&gt;friends" in page and "<b>friends" not in page
    assert Image.open(folder / "contact_sheet.png").width > 3 * 192


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    """A tiny CLIP with random weights in transformers' layout."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    from tiny_pipelines import tiny_tokenizer

    folder = tmp_path_factory.mktemp("clip")
    tokenizer = tiny_tokenizer(folder / "words")
    small = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4)
    text = dict(small, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id, max_position_embeddings=77)
    CLIPModel(CLIPConfig(text_config=text, vision_config=dict(small, image_size=32, patch_size=16), projection_dim=16)).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_persons_word_is_nothing_to_clip(clip_folder):
    """The prompt's score is CLIP's own cosine, computed here by hand."""
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    from idea_cli.judging import PromptJudge

    photo = torch.rand(40, 40, 3, generator=torch.Generator().manual_seed(1))
    model, words = CLIPModel.from_pretrained(clip_folder).train(False), CLIPTokenizer.from_pretrained(clip_folder)
    pixels = CLIPImageProcessor.from_pretrained(clip_folder)(Image.fromarray((photo.numpy() * 255).round().astype(np.uint8)), return_tensors="pt")
    with torch.no_grad():
        text = model.get_text_features(**words("a cat", return_tensors="pt"))
        image = model.get_image_features(**pixels)
    expected = torch.nn.functional.cosine_similarity(image, text).item()
    assert abs(PromptJudge(str(clip_folder)).score(photo, "a cat") - expected) < 1e-5


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be killed in this way there")
def test_a_killed_evaluation_goes_on_and_keeps_every_finished_picture(cli, anna_file, prompts):
    command = ("evaluate", *DRAW, "--identity", anna_file, "--held-out", "demo", "--prompts", prompts, "--count", 6, "-o", "report")
    process, scores = cli.start(*command), cli.folder / "report" / "scores.jsonl"
    deadline = time.monotonic() + 120
    while not (scores.is_file() and scores.read_text().count("\n") >= 3) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = [json.loads(line) for line in scores.read_text(encoding="utf-8").splitlines()]
    assert 3 <= len(kept) < 12
    with scores.open("a", encoding="utf-8") as file:
        file.write('{"identity": "an')  # as if killed in the middle of a line
    made = {row["picture"]: (cli.folder / "report" / row["picture"]).stat().st_mtime_ns for row in kept}
    cli.run(*command)
    rows = {row["picture"]: row for row in rows_of(cli.folder / "report")}
    assert len(rows) == 12 and {name: (cli.folder / "report" / name).stat().st_mtime_ns for name in made} == made
    assert all(float(rows[row["picture"]]["likeness"]) == row["likeness"] for row in kept)
    assert re.search("evaluation with another seed", cli.fail(*command, "--seed", 5))


@pytest.mark.parametrize("inside", ("sd15.safetensors", "unet/weights.safetensors"))
@pytest.mark.parametrize("option", ("model", "clip"))
def test_a_model_that_was_replaced_under_its_name_is_another_one(tmp_path, option, inside):
    import argparse
    from types import SimpleNamespace

    from idea_cli.evaluate import Ledger, _settings, arguments
    from idea_engine.errors import EvaluationError

    file = tmp_path / "models" / inside
    file.parent.mkdir(parents=True)
    path, parser = (file if file.parent.name == "models" else tmp_path / "models"), argparse.ArgumentParser()
    arguments(parser)

    def go_on():
        given = parser.parse_args(["--identity", "anna.safetensors", "--model", "demo", f"--{option}", str(path)])
        return Ledger(tmp_path / "report", _settings(given, SimpleNamespace(recognizer="judge"), [], ["a photo of {tokens}"]))

    file.write_bytes(b"weights")
    go_on()
    go_on()
    file.write_bytes(b"other weights")
    with pytest.raises(EvaluationError, match=f"an evaluation with another {option} files"):
        go_on()


def test_a_folder_of_identities_is_judged_by_a_pack(cli, anna_file, people, demo_pack, prompts):
    """The same recognizer only when it is asked for, held-out photographs that were trained on do not count, and one is too few to calibrate."""
    (cli.folder / "identities").mkdir()
    for name in ("anna", "Cleo Ray"):
        save_identity(load_identity(anna_file), cli.folder / "identities" / name)
    common = ("evaluate", *DRAW, "--identity", "identities", "--held-out", people, "--judge", demo_pack, "--prompts", prompts, "--count", 1, "--detection-size", 320)
    assert re.search("is the recognizer that .* was made with.*--judge", cli.fail(*common, "-o", "refused"))
    trained = cli.folder / "trained"
    (trained / "Cleo Ray").mkdir(parents=True)
    shutil.copy(people / "Cleo Ray" / "0.png", trained / "Cleo Ray")
    shutil.copy(people / "anna.png", trained)
    cli.run(*common, "--same-recognizer", "--trained-on", trained, "-o", "report")
    summary = json.loads((cli.folder / "report" / "summary.json").read_text(encoding="utf-8"))
    notes = "\n".join(summary["notes"])
    for sentence in ("anna: 1 of the held-out photographs were trained on", "anna: there is no photograph that was held out", "Cleo Ray: one photograph to compare with",
                     "Cleo Ray is judged by the recognizer it was made with"):
        assert sentence in notes
    assert {row["identity"]: row["calibrated"] for row in summary["scores"]} == {"anna": None, "Cleo Ray": None}


@pytest.mark.parametrize("arguments, sentence", [
    (("--held-out", "demo", "--prompts", "bad.txt"), "has no {tokens}"), (("--held-out", "nowhere"), "There is no photograph nowhere"),
    ((), "no photograph of anna with a face to compare with.*--held-out"), (("--held-out", "demo", "-o", "full"), "not empty and holds no evaluation"),
    (("--held-out", "demo", "--clip", "full"), "holds no CLIP"), (("--held-out", "demo", "--count", "0"), "--count is 0")])
def test_a_mistake_ends_in_a_sentence(cli, anna_file, arguments, sentence):
    (cli.folder / "full").mkdir()
    (cli.folder / "full" / "mine.txt").write_text("keep", encoding="utf-8")
    (cli.folder / "bad.txt").write_text("a photo of nobody\n", encoding="utf-8")
    assert re.search(sentence, cli.fail("evaluate", *DRAW, "--identity", anna_file, *arguments))
    assert (cli.folder / "full" / "mine.txt").is_file()
