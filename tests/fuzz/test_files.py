"""Thousands of broken and hostile files: each is read, or refused with a sentence; none runs code, crashes, takes minutes or gigabytes.

``pytest tests/fuzz --fuzz-minutes 60`` goes on for an hour with every kind; a failure names its attempt, and ``--fuzz-seed NUMBER`` begins there.
"""
import io
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from fuzzing import mutated, mutated_safetensors, random_name, random_program, write
from idea_engine.backends.family import ModelFamily
from idea_engine.errors import BadImageError, FaceCLIPFileError, FaceModelError, FaceNotFoundError, IdentityFileError
from idea_engine.files.atomic_write import atomic_write
from idea_engine.files.file_names import portable_parts
from idea_engine.files.foreign_text import parsed_json, shown
from idea_engine.identity.file import inspect_identity, save_identity
from idea_engine.identity.foreign_files import read_identity
from idea_engine.identity.identity import AdapterWeights, Identity, IdentityMetadata, StageTokens
from idea_engine.identity.operations import rounded


@pytest.fixture(autouse=True)
def quiet_folder(tmp_path, monkeypatch):
    """What runs where it must not would leave a file here."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "was-run").exists()


def settled(tally):
    """The test's end: nothing failed, and the attempts were neither all refused nor all read."""
    assert not tally.failures, "\n".join(tally.failures[:20])
    assert tally.held


def whole_identity():
    """An identity with every kind of part."""
    g = torch.Generator().manual_seed(0)
    rand = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    d = 40
    attention = {"in_proj_weight": rand(3 * d, d), "in_proj_bias": rand(3 * d), "out_proj.weight": rand(d, d), "out_proj.bias": rand(d)}
    tokens = lambda: {"clip_l": rand(2, 16), "clip_g": rand(2, 24)}  # noqa: E731
    return rounded(Identity(
        ModelFamily("sdxl", {"clip_l": 16, "clip_g": 24}), tokens(), IdentityMetadata("<anna>", "fast", "sdxl", "abc", "pack", "none", {"losses": [1.0], "steps": 1}, "agreed"),
        anchor=tokens(), adapter=AdapterWeights(rand(2, d), attention, 0.1, "tokens"), ending=rand(d), key_offsets={0: rand(2, d)}, value_offsets={0: rand(2, d)},
        key_weights={3: rand(8, d)}, value_weights={3: rand(8, d)}, face=rand(512), stages=(StageTokens(tokens(), tokens()),),
    ))


def test_identity_files(fuzzer, tmp_path):
    good = save_identity(whole_identity(), tmp_path / "good", store_face=True).read_bytes()
    path, again = tmp_path / "anna.safetensors", tmp_path / "again.safetensors"

    def act():
        read = read_identity(path)
        inspect_identity(path) if read.metadata.method != "imported" else None
        save_identity(read, again)  # what can be read can be saved, and read again
        read_identity(again)

    settled(fuzzer.run("identity files", 1200, lambda rng: write(path, mutated_safetensors(good, rng)), act, (IdentityFileError,)))


def test_embeddings(fuzzer, tmp_path):
    rows = torch.randn(3, 768)
    goods = [save({"emb_params": rows}), save({"clip_l": rows, "clip_g": torch.ones(3, 1280)}), save({f"<a>_{i}" if i else "<a>": rows[i].clone() for i in range(3)})]
    path = tmp_path / "anna.safetensors"
    settled(fuzzer.run(
        "embeddings", 700, lambda rng: write(path, mutated_safetensors(rng.choice(goods), rng)), lambda: read_identity(path), (IdentityFileError,)
    ))


class _Evil:
    def __reduce__(self):
        return os.mkdir, ("was-run",)


def test_pickles(fuzzer, tmp_path):
    rows = torch.randn(2, 768)
    contents = [{"<a>": rows}, {"a_v0": rows[0], "a_v1": rows[1]}, {"string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(rows)}), "name": "x"}, {"a": _Evil()}]
    goods = []
    for content in contents:
        for options in ({}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}):
            buffer = io.BytesIO()
            torch.save(content, buffer, **options)
            goods.append(buffer.getvalue())
    goods += [pickle.dumps(_Evil(), protocol) for protocol in (0, 1, 2, 4, 5)]
    programs = [zipfile.ZipFile(io.BytesIO(good)).read("archive/data.pkl") for good in goods[:12] if good[:2] == b"PK"]
    path = tmp_path / "anna.pt"

    def make(rng):
        kind = rng.randrange(4)
        if kind == 0:
            return write(path, mutated(rng.choice(goods), rng))
        program = random_program(rng) if kind == 1 else mutated(rng.choice(programs), rng)
        if kind == 3:
            return write(path, program)
        with zipfile.ZipFile(path, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
            archive.writestr("archive/data.pkl", program)
            archive.writestr("archive/data/0", bytes(rng.choice((0, 4, 6144, 20_000_000 if rng.random() < 0.05 else 100))))
            if rng.random() < 0.2:
                archive.writestr("archive/byteorder", rng.choice((b"big", b"little", b"?")))

    settled(fuzzer.run("pickles", 1500, make, lambda: read_identity(path), (IdentityFileError,)))


def test_pictures(fuzzer, tmp_path):
    from PIL import Image, features

    from idea_engine.files.pictures import read_photo

    picture = Image.linear_gradient("L").resize((64, 48)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    goods = []
    for kind, options in (("PNG", {}), ("JPEG", {"exif": exif}), ("JPEG", {"progressive": True}), ("WEBP", {}), ("GIF", {}), ("BMP", {}), ("TIFF", {"compression": "tiff_lzw"}), ("AVIF", {}), ("MPO", {}),
                          ("PPM", {}), ("EPS", {}), ("PDF", {}), ("ICO", {}), ("TGA", {})):
        if kind != "AVIF" or features.check("avif"):
            buffer = io.BytesIO()
            picture.save(buffer, kind, **options)
            goods.append(buffer.getvalue())
    for mode in ("I;16", "F", "1", "P", "LA", "RGBA", "CMYK"):
        buffer = io.BytesIO()
        picture.convert("L").convert("F" if mode in ("F", "I;16") else mode).convert(mode if mode != "I;16" else "I").save(buffer, "TIFF")
        goods.append(buffer.getvalue())
    path = tmp_path / "anna.png"

    def act():
        photo = read_photo(path)
        assert photo.ndim == 3 and photo.shape[2] == 3 and bool(torch.isfinite(photo).all()) and 0 <= float(photo.min()) and float(photo.max()) <= 1

    settled(fuzzer.run("pictures", 900, lambda rng: write(path, mutated(rng.choice(goods), rng)), act, (BadImageError,)))


def test_face_packs(fuzzer, tmp_path):
    from drawn_faces import drawn_face
    from idea_engine.faces.embed import embed_faces
    from idea_engine.faces.insightface_encoder import load_face_model
    from launcher.stand_ins.face_pack import make_face_pack

    good, folder, photo = make_face_pack(tmp_path / "good"), tmp_path / "pack", drawn_face(0)[0]

    def make(rng):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(good, folder)
        name = rng.choice(("detector.onnx", "recognizer.onnx", "recognizer.onnx", "LICENSE"))
        write(folder / name, mutated((good / name).read_bytes(), rng))

    def act():
        embed_faces(load_face_model(folder, "CPU", 320), [photo])

    settled(fuzzer.run("face packs", 25, make, act, (FaceModelError, FaceNotFoundError)))


def test_faceclip_files(fuzzer, tmp_path):
    from idea_engine.faceclip.checkpoint import checked, read
    from idea_engine.faceclip.config import to_json
    from tiny_faceclip import tiny_configs, tiny_encoder

    state = tiny_encoder(tiny_configs()).state_dict()
    buffer, saved = io.BytesIO(), tmp_path / "good.safetensors"
    torch.save({f"model.{key}": value for key, value in state.items()}, buffer)
    save_file(state, saved, {"idea.faceclip": to_json(tiny_configs())})
    goods, path = (saved.read_bytes(), buffer.getvalue()), tmp_path / "faceclip.pt"

    def make(rng):
        write(path, mutated_safetensors(goods[0], rng) if rng.random() < 0.7 else mutated(goods[1], rng))

    settled(fuzzer.run("FaceCLIP files", 80, make, lambda: checked(*read(path)), (FaceCLIPFileError,)))


def test_faceclip_descriptions(fuzzer):
    from idea_engine.faceclip.config import from_json, to_json
    from tiny_faceclip import tiny_configs

    good, text = to_json(tiny_configs()), [""]

    def make(rng):
        told = json.loads(good)
        encoder = told[rng.choice(list(told))]
        for _ in range(rng.randrange(1, 4)):
            encoder[rng.choice(list(encoder))] = rng.choice((0, 1, -1, 3, 64, 2**31, 2**70, 1.5, True, None, "x", [], "\x1b"))
        text[0] = json.dumps(told) if rng.random() < 0.7 else mutated(good.encode(), rng).decode(errors="replace")

    settled(fuzzer.run("FaceCLIP descriptions", 2000, make, lambda: from_json(text[0]), (FaceCLIPFileError,)))


def test_names(fuzzer, tmp_path):
    """A name that is taken can be written, stays inside, and can be listed."""
    name = [""]

    def act():
        parts = portable_parts(name[0])
        path = (tmp_path / "models").joinpath(*parts)
        assert path.resolve().is_relative_to((tmp_path / "models").resolve())
        atomic_write(path.with_name(path.name + ".safetensors"), b"x")
        assert path.name + ".safetensors" in os.listdir(path.parent)
        shutil.rmtree(tmp_path / "models")

    settled(fuzzer.run("names", 2000, lambda rng: name.__setitem__(0, random_name(rng)), act, (ValueError,)))


def test_texts(fuzzer):
    text = [b""]

    def act():
        told = shown(text[0].decode("utf-8", "surrogateescape"))
        harmful = {*map(chr, (*range(32), *range(127, 160), 0x2028, 0x2029, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)))}
        assert len(told) <= 200 and not harmful & set(told)
        told.encode()
        parsed_json(text[0])

    def make(rng):
        text[0] = mutated(b'{"a": [1, 2.5e300, null, "\\u001b\\ud800"], "b": {"c": "' + "ä\u202e".encode() + b'"}}' * rng.randrange(1, 5), rng)

    settled(fuzzer.run("texts", 2000, make, act, (ValueError,)))


def test_the_repository_holds_no_corpus():
    """Every file is made from its attempt's number."""
    assert sum(path.stat().st_size for path in Path(__file__).parent.rglob("*") if path.is_file() and path.suffix != ".pyc") < 1 << 20
