"""FaceCLIP files: what is read from them, what is refused, and how they are converted."""
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import weakref
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import idea_engine
from idea_engine.errors import FaceCLIPFileError
from idea_engine.faceclip.checkpoint import checked, layout, read
from idea_engine.faceclip.config import PUBLISHED, from_json, to_json
from idea_engine.faceclip.convert import convert
from idea_engine.faceclip.load import encoder_from_state_dict
from tiny_faceclip import faces, telling_configs, tiny_configs, tiny_encoder, tiny_published

PROMPT = "a woman in a blue shirt on a desert plateau"


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder()


def shapes_only(configs):
    """What a checkpoint of these sizes holds, without its weights."""
    return {key: torch.empty(shape, device="meta") for key, shape in layout(configs).items()}


def published_state(encoder):
    return {f"model.{key}": value for key, value in encoder.state_dict().items()}


def test_a_published_state_dict_loads_without_a_copy(encoder):
    state = published_state(encoder)
    loaded = encoder_from_state_dict(state, configs=tiny_configs())
    assert loaded.face_clip_l.proj1.weight.data_ptr() == state["model.face_clip_l.proj1.weight"].data_ptr()
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    assert torch.equal(loaded.encode(faces(1), [PROMPT])[0], encoder.encode(faces(1), [PROMPT])[0])


def test_missing_left_over_and_misshapen_keys_are_listed(encoder):
    state = published_state(encoder)
    del state["model.face_clip_l.proj1.weight"]
    state["model.face_clip_g.surprise"] = torch.zeros(1)
    state["model.face_clip_g.proj1.bias"] = torch.zeros(3)
    with pytest.raises(FaceCLIPFileError) as error:
        encoder_from_state_dict(state, configs=tiny_configs())
    said = str(error.value)
    assert error.value.missing == ("face_clip_l.proj1.weight",) and error.value.unexpected == ("face_clip_g.surprise",)
    assert len(error.value.misshapen) == 1
    assert "1 missing: face_clip_l.proj1.weight" in said and "1 unexpected: face_clip_g.surprise" in said
    assert re.search(r"1 of another shape: face_clip_g\.proj1\.bias \(3,\) instead of \(64,\)", said)


def test_an_encoder_that_is_asked_for_and_not_there_is_missing(encoder):
    state = {key: value for key, value in published_state(encoder).items() if "face_clip_g" not in key}
    with pytest.raises(FaceCLIPFileError, match="missing: face_clip_g"):
        encoder_from_state_dict(state, configs=tiny_configs())
    with pytest.raises(FaceCLIPFileError, match="holds no FaceCLIP encoder.*found unet"):
        encoder_from_state_dict({"unet": torch.zeros(1)})


def test_conversion_and_back(tmp_path):
    """The published kind of file → safetensors → the same encoder."""
    made = tiny_encoder(telling_configs(), seed=3)
    source, target = tmp_path / "face_clip_encoder.pt", tmp_path / "made" / "faceclip.safetensors"
    torch.save(published_state(made), source)
    report = convert(source, target, "fp32")
    assert report.encoders == ("face_clip_l", "face_clip_g") and report.bytes == target.stat().st_size and "CC BY-NC 4.0" in str(report)
    state, configs = read(target)
    # In memory of their own: a mapped file's weights need not lie at multiples of 16 bytes, and matrix products round otherwise where they do not.
    loaded = encoder_from_state_dict({key: value.clone() for key, value in state.items()}, configs=configs)
    assert configs == telling_configs() and torch.equal(loaded.encode(faces(1), PROMPT)[0], made.encode(faces(1), PROMPT)[0])
    torch.testing.assert_close(dict(loaded.state_dict()), dict(made.state_dict()), rtol=0, atol=0)
    convert(target, target, "fp16")
    assert {value.dtype for value in read(target)[0].values()} == {torch.float16, torch.int64}


def test_sizes_that_shapes_do_not_tell_are_kept_by_the_conversion(encoder, tmp_path):
    from safetensors.torch import save_file

    described, target = tmp_path / "described.safetensors", tmp_path / "made.safetensors"
    save_file(encoder.state_dict(), described, metadata={"idea.faceclip": to_json(tiny_configs())})
    convert(described, target)
    assert read(target)[1] == tiny_configs() != checked(encoder.state_dict())[1]


def test_a_broken_source_leaves_nothing_behind(encoder, tmp_path):
    source, target = tmp_path / "face_clip_encoder.pt", tmp_path / "made" / "faceclip.safetensors"
    torch.save({key: value for key, value in published_state(encoder).items() if "proj1" not in key}, source)
    with pytest.raises(FaceCLIPFileError, match="4 missing: face_clip_l.proj1"):
        convert(source, target)
    assert list(tmp_path.iterdir()) == [source]


def test_an_interrupted_conversion_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    source, target = tmp_path / "face_clip_encoder.pt", tmp_path / "faceclip.safetensors"
    torch.save(tiny_published(), source)
    target.write_bytes(b"what was there before")

    def interrupted(tensors, path, metadata):
        with open(path, "wb") as file:
            file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.torch.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(source, target)
    assert target.read_bytes() == b"what was there before" and sorted(tmp_path.iterdir()) == [source, target]


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_nobody_looks_into_the_source_when_the_target_takes_its_place(tmp_path, monkeypatch, ending):
    """Windows refuses to replace a file that is mapped, and source and target may be one."""
    from safetensors.torch import save_file

    source, target = tmp_path / f"source{ending}", tmp_path / "faceclip.safetensors"
    state = tiny_encoder(telling_configs()).state_dict()
    torch.save(state, source) if ending == ".pt" else save_file(state, source)
    held, alive = [], []

    def watched(path):
        tensors, configs = read(path)
        held.extend(weakref.ref(value) for value in tensors.values())
        return tensors, configs

    replace_file = os.replace
    monkeypatch.setattr("idea_engine.faceclip.convert.read", watched)
    monkeypatch.setattr("os.replace", lambda *paths: (alive.append(sum(ref() is not None for ref in held)), replace_file(*paths)))
    convert(source, target)
    assert len(held) > 100 and alive == [0]


def test_the_converter_runs_on_its_own_where_there_is_no_command_line(tmp_path):
    """As in the archive of ComfyUI's registry, which leaves out idea_cli."""
    shipped = tmp_path / "pack" / "idea_engine"
    shutil.copytree(Path(idea_engine.__file__).parent, shipped, ignore=shutil.ignore_patterns("__main__.py", "__pycache__"))
    torch.save(tiny_published(), tmp_path / "face_clip_encoder.pt")

    def run(source):
        command = [sys.executable, "-m", "idea_engine.faceclip.convert", f"../{source}", "../made.safetensors"]
        return subprocess.run(command, cwd=shipped.parent, capture_output=True, text=True, encoding="utf-8")

    done = run("face_clip_encoder.pt")
    assert done.returncode == 0 and "CC BY-NC 4.0" in done.stdout, done.stderr
    assert read(tmp_path / "made.safetensors")[1] == telling_configs()
    failed = run("nowhere.pt")
    assert failed.returncode == 2 and failed.stderr.startswith("There is no file")


def test_a_published_file_is_read_with_tensors_only(encoder, tmp_path):
    class Surprise:
        def __reduce__(self):
            return print, ("executed",)

    path = tmp_path / "evil.pt"
    torch.save({"model.face_clip_l.proj1.weight": Surprise()}, path)
    with pytest.raises(FaceCLIPFileError, match="evil.pt cannot be read"):
        read(path)
    path.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(FaceCLIPFileError, match="truncated"):
        read(path)
    with pytest.raises(FaceCLIPFileError, match="no file"):
        read(tmp_path / "nowhere.pt")
    torch.save(published_state(encoder), path)
    assert read(path)[0].keys() == published_state(encoder).keys()


@pytest.mark.parametrize("text", ["{", "[]", '{"unet": {}}', '{"face_clip_l": {"text_width": "64"}}', '{"face_clip_l": {"text_width": 99999999}}'])
def test_a_false_description_of_sizes_is_refused(text):
    with pytest.raises(FaceCLIPFileError, match="cannot be read"):
        from_json(text)
    assert from_json(to_json(tiny_configs())) == tiny_configs()


def test_a_state_dict_alone_is_enough():
    made = tiny_encoder(telling_configs(), seed=3)
    loaded = encoder_from_state_dict(published_state(made))
    assert loaded.configs == telling_configs()
    for one, other in zip(loaded.encode(faces(1), PROMPT), made.encode(faces(1), PROMPT)):
        assert torch.equal(one, other)


def test_what_safetensors_loads_keeps_its_kind(tmp_path):
    """It lists the counters of the batch norms, which are whole numbers, before the weights."""
    from safetensors.torch import load_file, save_file

    made = tiny_encoder(telling_configs(), seed=3)
    save_file({f"model.{key}": value.bfloat16() if value.is_floating_point() else value for key, value in made.state_dict().items()}, tmp_path / "a.safetensors")
    state = load_file(tmp_path / "a.safetensors")
    assert next(iter(state.values())).dtype == torch.int64
    loaded = encoder_from_state_dict(state)
    assert {value.dtype for value in loaded.parameters()} == {torch.bfloat16} and loaded.encode(faces(1), PROMPT)[0].isfinite().all()


@pytest.mark.parametrize("key", list(PUBLISHED))
def test_one_encoder_alone_is_accepted_with_and_without_its_name(key):
    made = tiny_encoder({key: telling_configs()[key]}, seed=3)
    expected = made.encode(faces(1), PROMPT)
    named = published_state(made)
    loaded = encoder_from_state_dict(named)
    assert list(loaded.configs) == [key] and loaded.width == made.width
    bare = encoder_from_state_dict({name.removeprefix(f"model.{key}."): value for name, value in named.items()}, configs=made.configs)
    for one, other, wanted in zip(loaded.encode(faces(1), PROMPT), bare.encode(faces(1), PROMPT), expected):
        assert torch.equal(one, wanted) and torch.equal(other, wanted)


@pytest.mark.parametrize("key", list(PUBLISHED))
def test_a_published_size_is_recognised_and_held_to_every_key(key):
    state = shapes_only({key: PUBLISHED[key]})
    for given in (state, {name.removeprefix(f"{key}."): value for name, value in state.items()}):
        tensors, sizes = checked(given)
        assert sizes == {key: PUBLISHED[key]} and tensors.keys() == state.keys()
    last = f"{key}.transformer.resblocks.{PUBLISHED[key].text_layers - 1}."
    with pytest.raises(FaceCLIPFileError) as error:
        checked({name: value for name, value in state.items() if not name.startswith(last)})
    assert len(error.value.missing) == 12 and all(name.startswith(last) for name in error.value.missing)


def test_widths_that_no_usual_number_of_heads_divides_need_a_description():
    odd = {"face_clip_l": replace(telling_configs()["face_clip_l"], text_width=60, text_heads=2, fuser_heads=4)}
    with pytest.raises(FaceCLIPFileError, match="60 channels.*configs"):
        checked(shapes_only(odd))
    assert checked(shapes_only(odd), odd)[1] == odd


def test_what_is_no_tensor_and_what_is_there_twice_is_told(encoder):
    state = {**published_state(encoder), "epoch": 3, "face_clip_l.proj1.bias": torch.zeros(32)}
    with pytest.raises(FaceCLIPFileError, match="2 unexpected: epoch .int, no tensor., face_clip_l.proj1.bias .there twice"):
        encoder_from_state_dict(state, configs=tiny_configs())


def test_every_key_in_question_is_on_the_error_and_in_the_log(encoder, caplog):
    gone = [key for key in encoder.state_dict() if ".fuser." in key]
    state = {key: value for key, value in encoder.state_dict().items() if key not in gone}
    with caplog.at_level(logging.ERROR), pytest.raises(FaceCLIPFileError) as error:
        encoder_from_state_dict(state, configs=tiny_configs())
    assert len(gone) > 100 and set(error.value.missing) == set(gone) and all(key in caplog.text for key in gone)
    assert len(str(error.value)) < 1000 and f"and {len(gone) - 8} more" in str(error.value)


@pytest.mark.parametrize("change", [
    {"text_layers": 1_000_000}, {"face_layers": 0}, {"text_width": 0}, {"text_heads": 0}, {"fuser_heads": 7}, {"patch": 0}, {"points": 0}, {"face_side": 3},
    {"vocabulary": 1 << 40}, {"text_width": -64}, {"activation": "exec"}, {"prefix": "x" * 5000}, {"text_layers": "9" * 9000}, {"depth": 3},
], ids=lambda change: "{}={}".format(*[str(part)[:12] for item in change.items() for part in item]))
def test_an_encoder_that_cannot_be_is_refused_at_once(change):
    """A header of a million layers took minutes, one without width divided by zero."""
    described = json.loads(to_json(tiny_configs()))
    described["face_clip_l"].update(change)
    with pytest.raises(FaceCLIPFileError) as error:
        from_json(json.dumps(described))
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 9000, '{"face_clip_l": []}', "[]", "null", '{"\\u001b[2J": {}}'])
def test_a_hostile_description_is_answered_with_a_sentence(text):
    with pytest.raises(FaceCLIPFileError) as error:
        from_json(text)
    assert len(str(error.value)) < 400 and "\x1b" not in str(error.value)


@pytest.mark.parametrize("key, shape", [
    ("face_clip_l.token_embedding.weight", (49408, 0)), ("face_clip_l.face_encoder.pos_embed", (1, 0, 0)), ("face_clip_l.transformer.resblocks.999.x", (1,)),
    ("face_clip_l.face_encoder.patch_embed.proj.weight", (0, 0, 0, 0)), ("face_clip_l.face_encoder.pos_embed", (1, 10**12, 64)),
    ("face_clip_l.fuser.encoder.layers.0.self_attn.attention_weights.weight", (10**9, 1)), (7, (1,)),
])
def test_shapes_that_no_encoder_has_are_refused_at_once(key, shape):
    state = {key: value for key, value in shapes_only(tiny_configs()).items() if key.startswith("face_clip_l")}
    state[key] = torch.empty(shape, device="meta")
    with pytest.raises(FaceCLIPFileError):
        checked(state)


def test_what_a_checkpoint_claims_is_held_against_what_it_has(tmp_path):
    torch.save({"model.face_clip_l.token_embedding.weight": torch.zeros(1).expand(1 << 20, 8192)}, tmp_path / "a.pt")
    with pytest.raises(FaceCLIPFileError, match="claim 34360 MB"):
        read(tmp_path / "a.pt")
    torch.save({"a": torch.eye(3).to_sparse()}, tmp_path / "a.pt")
    with pytest.raises(FaceCLIPFileError, match="a.pt cannot be read"):
        read(tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(50 << 20))
    with pytest.raises(FaceCLIPFileError, match="unpacks to"):
        read(tmp_path / "a.pt")


@pytest.mark.parametrize("content", [b"", b"\x80", b"PK\x03\x04", b"\0" * 8, b"<!doctype html>"])
@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_a_broken_download_is_named(tmp_path, content, ending):
    (tmp_path / f"a{ending}").write_bytes(content)
    with pytest.raises(FaceCLIPFileError, match="cannot be read.*it is empty, truncated or of another kind"):
        read(tmp_path / f"a{ending}")
