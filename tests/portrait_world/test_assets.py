"""The shipped weights do what they are for."""
import numpy as np
import pytest
import torch

from portrait_world.drawing.portrait import landmarks, render
from portrait_world.world.people import person
from portrait_world.world.portrayal import Shot, photograph


@pytest.fixture(scope="module")
def photos():
    rng = np.random.default_rng(0)
    return np.stack([render(person("validation", i), photograph(rng)) for i in range(24) for _ in range(2)])


def test_everything_shipped_is_at_most_16_megabytes(shipped):
    """The parts of FaceCLIP and of the ID-Enhancer, which the model itself does not need, are counted by their own tests."""
    assert sum(file.stat().st_size for file in shipped.FOLDER.rglob("*") if file.is_file() and file.stem not in ("faceclip", "enhancer")) <= 16_000_000


def test_everything_made_here_has_the_licence_of_this_repository(shipped):
    from safetensors import safe_open

    said = {"the face pack": (shipped.FACE_PACK / "LICENSE").read_text(encoding="utf-8")}
    for file in shipped.FOLDER.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            said[file.name] = opened.metadata()["licence"]
    repository = (shipped.FOLDER.parents[1] / "LICENSE").read_text(encoding="utf-8")
    assert len(said) >= 7 and "Apache License" in repository and "Version 2.0" in repository
    assert {name: text for name, text in said.items() if not text.startswith("Apache-2.0")} == {}
    assert "Copyright (c) 2021 OpenAI" in (shipped.FOLDER / "clip_merges.LICENSE.txt").read_text(encoding="utf-8")  # the one file made elsewhere


def test_a_picture_survives_the_autoencoder(shipped, photos):
    from portrait_world.networks.autoencoder import SD_SCALE, to_pictures, to_tensor

    latents = shipped.autoencoder().encode(to_tensor(photos))
    assert latents.shape == (48, 4, 16, 16)
    assert 0.7 < float((latents * SD_SCALE).std()) < 1.4
    back = to_pictures(shipped.autoencoder().decode(latents)).astype(float)
    error = ((back - photos) ** 2).reshape(len(photos), -1).mean(1)
    assert (10 * np.log10(255**2 / error)).mean() > 21


def test_the_judge_tells_people_apart(shipped, photos):
    from portrait_world.judging.similarity import judge_embeddings

    cosines = judge_embeddings(photos) @ judge_embeddings(photos).T
    own = torch.tensor([float(cosines[2 * i, 2 * i + 1]) for i in range(24)])
    others = cosines[::2, 1::2][~torch.eye(24, dtype=torch.bool)]
    assert own.mean() > others.mean() + 0.25


def test_the_attribute_judge_reads_plain_photographs(shipped):
    from portrait_world.judging.similarity import read_attributes

    shots = [Shot(scene=s, colour=c, seed=k) for k, (s, c) in enumerate(zip(("beach", "city", "library", "space"), ("red", "blue", "green", "yellow")))]
    seen = read_attributes(np.stack([render(person("validation", k), shot) for k, shot in enumerate(shots)]))
    wanted = torch.tensor([shot.labels() for shot in shots])
    assert (seen[:, 0] == wanted[:, 0]).float().mean() >= 0.75
    assert (seen[:, 1] == wanted[:, 1]).float().mean() >= 0.75


def test_the_real_face_analysis_finds_and_recognizes_portraits(shipped, photos):
    insightface_app = pytest.importorskip("insightface.app")
    if not list(shipped.FACE_PACK.glob("*.onnx")):
        pytest.skip("the face pack is not exported yet")
    app = insightface_app.FaceAnalysis(name=str(shipped.FACE_PACK), providers=["CPUExecutionProvider"])
    app.prepare(ctx_id=-1, det_size=(320, 320))
    rng, embeddings, errors = np.random.default_rng(0), [], []
    for k, picture in enumerate(photos):
        shot = photograph(rng)
        faces = app.get(np.ascontiguousarray(picture[:, :, ::-1]))
        assert len(faces) == 1, k
        assert faces[0].embedding.shape == (512,)
        errors.append(np.abs(faces[0].kps - landmarks(person("validation", k // 2), shot) * 128).mean())
        embeddings.append(faces[0].normed_embedding)
    assert np.mean(errors) < 4.0  # pixels
    cosines = np.array(embeddings) @ np.array(embeddings).T
    own = np.mean([cosines[2 * i, 2 * i + 1] for i in range(24)])
    assert own > cosines[::2, 1::2][~np.eye(24, dtype=bool)].mean() + 0.2


def test_the_diffusers_pipeline_draws(shipped):
    pytest.importorskip("diffusers")
    from portrait_world.pipeline import load_pipeline

    pipe = load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    make = lambda: pipe("a photo of anna smith on a beach", num_inference_steps=4, guidance_scale=3.0,
                        generator=torch.Generator().manual_seed(0), output_type="np").images
    first = make()
    assert first.shape == (1, 128, 128, 3) and np.isfinite(first).all()
    assert np.array_equal(first, make())
