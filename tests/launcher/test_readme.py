"""Every command in the README runs, as it stands there."""
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import torch
from PIL import Image

from launcher.cache import quickstart_folder
from launcher.environment import Environment
from launcher.hosts import find_checkouts
from launcher.stand_ins import demo_checkpoint, demo_face_pack

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", README, re.S) for line in block.splitlines() if line]
CLONE, INSTALL = COMMANDS[:2]
MAIN_JOB, WITH_MODELS, SERVE, TEST = "python quickstart.py", COMMANDS[3], "python quickstart.py --serve", "python quickstart.py test"
WITH_IDENTITY = "python quickstart.py --identity anna.safetensors"
QUICK = "python quickstart.py run"
PATIENCE = 600


def arguments(command: str) -> list[str]:
    """Return a README command with this interpreter and this checkout's quickstart."""
    python, script, *rest = shlex.split(command)
    assert (python, script) == ("python", "quickstart.py")
    return [sys.executable, str(ROOT / "quickstart.py"), *rest]


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8", timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_command_has_its_test():
    known = [CLONE, INSTALL, MAIN_JOB, WITH_MODELS, WITH_IDENTITY, SERVE, TEST]
    assert [command for command in COMMANDS if command not in known and not command.startswith(QUICK)] == []
    assert CLONE.startswith("git clone") and " pip install -r " in INSTALL and "--checkpoint" in WITH_MODELS
    assert {MAIN_JOB, WITH_IDENTITY, SERVE, TEST} <= set(COMMANDS)


def test_beside_an_onnxruntime_of_ones_own_insightface_gets_everything_else_it_needs():
    """The two lines of 'Face recognizer', and the same in the node's message, against what insightface itself says."""
    from importlib.metadata import requires

    from idea_engine.faces.pack import missing_package_sentence

    def name(requirement):
        return re.match(r"[\w.-]+", requirement)[0].lower()

    wanted = {name(need) for need in requires("insightface") if "extra ==" not in need} - {"onnxruntime"}
    here = {name(line) for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")}
    alone, others = re.search(r"```text\n(.+)\n(.+)\n```", README).groups()
    assert "--no-deps" in alone and wanted - here <= set(others.lower().split()) and not [word for word in others.split() if word.startswith("onnxruntime")]
    assert others.split(" install ")[1] in missing_package_sentence("insightface", ImportError())  # pytest's Python has an onnxruntime
    before = README.split("```bash")[0]
    assert "onnxruntime-gpu" in before and "second `-r`" in before  # the warning stands before what it warns of


def test_the_table_has_every_option_and_no_other(tmp_path):
    told = re.findall(r"^\| `(--[a-z-]+)", README.split("| option | meaning |")[1].split("\n\n")[0], re.M)
    offered = re.findall(r"^  (--[a-z-]+)", run([sys.executable, str(ROOT / "quickstart.py"), "--help"], tmp_path), re.M)
    assert len(offered) > 8 and sorted(told) == sorted(offered)


def test_the_readme_names_every_node():
    import ast

    tree = ast.parse((ROOT / "nodes" / "__init__.py").read_text(encoding="utf-8"))
    names = next(ast.literal_eval(s.value) for s in tree.body if isinstance(s, ast.Assign) and s.targets[0].id == "NODE_DISPLAY_NAME_MAPPINGS")
    rows = [row.split("|")[1] for row in README.split("\n## The graph\n")[1].split("\n## ")[0].splitlines() if row.startswith("| ")]
    told = {name.strip() for row in rows for name in row.split(",")}
    assert len(names) > 15 and set(names.values()) - told == set()


@pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="this checkout is no git repository")
def test_installing_puts_the_pack_where_comfyui_looks(tmp_path, monkeypatch):
    _, _, address, target = CLONE.split()
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")  # the published address stands for this checkout
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{ROOT.as_uri()}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", address)
    run(shlex.split(CLONE), tmp_path)
    assert (tmp_path / target / "__init__.py").is_file()
    run([sys.executable, *shlex.split(INSTALL)[1:], "--dry-run"], tmp_path)


@pytest.mark.quickstart
def test_the_main_job_makes_a_portrait_and_a_report(tmp_path):
    said = run(arguments(MAIN_JOB), tmp_path)
    output = tmp_path / "quickstart-output"
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    assert (output / "portrait.png").read_bytes().startswith(b"\x89PNG")
    assert "Portrait World" in report["base_model"] and report["host"] in said and f"likeness  {report['likeness']:.2f}" in said
    assert len(report["prompts"]) == len(report["likeness_by_picture"]) == 8 and set(report["phase_seconds"]) >= {"training", "sampling", "judging and the sheet"}
    assert report["seed"]["IDEA_TrainIDEA"] == [0] and not report["rehearsal"]
    assert {"IDEA_TrainIDEA", "KSampler"} <= set(report["node_seconds"]) and Path(report["identity"]).is_file()
    assert all(Path(path).is_file() for path in report["pictures"].values())
    assert quickstart_folder() in Path(report["identity"]).parents  # where 'forget' finds it
    chosen = find_checkouts().preferred
    assert report["host_commit"] == (chosen.commit if chosen else None)


@pytest.mark.quickstart
def test_a_photograph_of_ones_own_is_learned_and_its_identity_used_again(tmp_path):
    from portrait_world.drawing.portrait import render
    from portrait_world.world.people import person
    from portrait_world.world.portrayal import Shot

    Image.fromarray(render(person("test", 7), Shot(scene="beach"), size=256)).save(tmp_path / "me.png")
    said = run([*arguments(MAIN_JOB), "--photo", "me.png", "--rehearse"], tmp_path)
    report = json.loads((tmp_path / "quickstart-output" / "report.json").read_text(encoding="utf-8"))
    assert report["photo"].endswith("me.png") and "not calibrated" in report["likeness_scale"] and report["rehearsal"] and "cosine" in said
    run([*arguments(MAIN_JOB), "--identity", report["identity"], "--rehearse"], tmp_path)  # needs the model it was learned on
    again = json.loads((tmp_path / "quickstart-output" / "report.json").read_text(encoding="utf-8"))
    assert "Portrait World" in again["base_model"] and "IDEA_TrainIDEA" not in again["node_seconds"]


@pytest.mark.quickstart
def test_models_of_ones_own_are_taken(tmp_path):
    environment = Environment(Path(sys.prefix))
    shutil.copy(ROOT / "example_workflows" / "anna.png", tmp_path / "anna.jpg")
    (tmp_path / "v1-5-pruned-emaonly.safetensors").symlink_to(demo_checkpoint(environment))
    shutil.copytree(demo_face_pack(environment), tmp_path / "buffalo_l")
    said = run([*arguments(WITH_MODELS), "--rehearse"], tmp_path)  # the workflow's own values take half an hour on two cores
    report = json.loads((tmp_path / "quickstart-output" / "report.json").read_text(encoding="utf-8"))
    assert report["base_model"].endswith("v1-5-pruned-emaonly.safetensors") and "RANDOM" not in said


@pytest.mark.quickstart
def test_a_saved_identity_is_used_without_training(tmp_path):
    from idea_engine.backends.family import ModelFamily
    from idea_engine.identity.file import save_identity
    from idea_engine.identity.identity import Identity, IdentityMetadata

    family = ModelFamily("sd1", {"clip_l": 768})
    save_identity(Identity(family, {"clip_l": torch.randn(2, 768)}, IdentityMetadata("<somebody>", "imported", "sd1")), tmp_path / "anna")
    run(arguments(WITH_IDENTITY), tmp_path)
    report = json.loads((tmp_path / "quickstart-output" / "report.json").read_text(encoding="utf-8"))
    assert "IDEA_TrainIDEA" not in report["node_seconds"] and "KSampler" in report["node_seconds"]
    assert report["identity"].endswith("anna.safetensors") and Path(report["pictures"]["portrait"]).is_file()


@pytest.mark.quickstart
def test_serving_goes_on_until_it_is_stopped(tmp_path):
    own_group = {} if sys.platform == "win32" else {"start_new_session": True}
    process = subprocess.Popen(arguments(SERVE), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", **own_group)
    try:
        said = ""
        for line in process.stdout:
            said += line
            if found := re.search(r"keeps running at (http://\S+);", line):
                break
        assert process.poll() is None, said
        with urllib.request.urlopen(found[1] + "/queue", timeout=10) as answer:
            assert answer.status == 200
    finally:
        process.terminate() if sys.platform == "win32" else os.kill(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
    with pytest.raises(OSError):
        urllib.request.urlopen(found[1] + "/queue", timeout=10)


@pytest.mark.quickstart
@pytest.mark.skipif(sys.platform == "win32", reason="kills the POSIX way")
def test_a_killed_quickstart_leaves_no_comfyui_behind(tmp_path):
    process = subprocess.Popen(arguments(SERVE), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8")
    said = ""
    for line in process.stdout:
        said += line
        if found := re.search(r"It answers at (http://\S+)", line):
            break
    assert process.poll() is None, said
    process.kill()  # without a word to anybody
    process.communicate(timeout=60)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(found[1] + "/queue", timeout=10).close()
        except OSError:
            return
        time.sleep(0.1)
    raise AssertionError(f"{found[1]} still answers")


def test_the_tests_start_with_the_command_for_them(tmp_path):
    assert "test_readme.py" in run([*arguments(TEST), "--collect-only", "-q", "tests/launcher/test_readme.py"], tmp_path)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith(QUICK)])
def test_any_command_runs_in_the_environment(command, tmp_path):
    collect = ["--collect-only"] if "pytest" in command else []  # running them here would run them twice
    run([*arguments(command), *collect], ROOT if "tests/" in command else tmp_path)


@pytest.mark.parametrize("options, sentence", [
    (["--photo", "nowhere.png"], "--photo .*nowhere.png is not a file"), (["--host", "."], "is not a ComfyUI"),
    (["--face-pack", "nowhere"], "is not a folder"), (["run"], "Name a command"), (["run", "no-such-command"], "no command 'no-such-command'")])
def test_a_mistake_ends_in_a_sentence_and_a_failure_code(options, sentence, tmp_path):
    if "--photo" not in options and options[0].startswith("--"):
        (tmp_path / "me.png").write_bytes(b"")
        options = ["--photo", "me.png", *options]
    done = subprocess.run([sys.executable, str(ROOT / "quickstart.py"), *options], cwd=tmp_path, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 1 and re.search(sentence, done.stderr) and "Traceback" not in done.stderr
