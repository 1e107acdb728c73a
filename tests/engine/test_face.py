"""Photographs → face embedding, through the real FaceAnalysis on the demo pack."""
from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from drawn_faces import collage, drawn_face, landscape
from idea_engine.errors import BadImageError, FaceModelError, FaceNotFoundError
from idea_engine.faces.align import ARCFACE_TEMPLATE, align_face, similarity_to_template
from idea_engine.faces.embed import embed_faces, search_photos
from idea_engine.faces.insightface_encoder import load_face_model
from idea_engine.faces.pack import onnx_task, open_face_pack
from idea_engine.faces.preview import draw_preview
from idea_engine.identity.enhanced import EnhancedIdentity
from idea_engine.training.pictures import found_masks

ROOT = Path(__file__).resolve().parents[2]
UNIT = 52.0  # distance between the eyes in drawn_face


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    from launcher.stand_ins.face_pack import make_face_pack

    return make_face_pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture(scope="module")
def encoder(pack):
    return load_face_model(pack, "CPU", 640)


def near(found, expected, units=0.35):
    """Landmarks agree up to a part of the distance between the eyes: the demo detector knows one average face."""
    return np.abs(np.asarray(found) - expected).max() < units * UNIT


def test_one_photograph_gives_one_complete_row(encoder):
    image, landmarks = drawn_face(0)
    face = embed_faces(encoder, [image])
    assert len(face) == 1 and face.image_index == (0,)
    assert face.vectors.shape == (1, 512) and face.vectors.dtype == torch.float32
    torch.testing.assert_close(face.vectors.norm(dim=1), torch.ones(1))
    assert face.crops.shape == (1, 112, 112, 3) and 0 <= face.crops.min() and face.crops.max() <= 1
    assert face.masks[0].shape == image.shape[:2]
    assert near(face.landmarks[0], landmarks)
    x1, y1, x2, y2 = face.boxes[0]
    assert 0 <= x1 < x2 <= 320 and 0 <= y1 < y2 <= 320
    assert "stand-in" in face.licence


def test_the_recognizer_is_named_with_its_content(encoder, pack):
    name, digest = encoder.recognizer.split(":")
    assert name == "recognizer" and len(digest) == 8 and int(digest, 16) >= 0


def test_the_same_photograph_gives_the_same_numbers(encoder, pack):
    image, _ = drawn_face(5)
    again = load_face_model(pack, "auto", 640)
    assert torch.equal(embed_faces(encoder, [image]).vectors, embed_faces(again, [image]).vectors)


def test_one_person_is_closer_to_herself_than_to_others(encoder):
    same = embed_faces(encoder, [drawn_face(3)[0], drawn_face(3, centre=(166, 156))[0], drawn_face(3, unit=56)[0]]).vectors
    others = embed_faces(encoder, [drawn_face(seed)[0] for seed in range(4, 10)]).vectors
    assert (same @ same.T).min() > 0.95
    assert (same @ others.T).max() < (same @ same.T).min()


def test_the_average_is_weighted_by_quality(encoder):
    large, small = drawn_face(0, 320, 60.0)[0], drawn_face(1, 320, 24.0)[0]
    face = embed_faces(encoder, [large, small])
    assert face.weights[0] > 1.5 * face.weights[1] > 0  # the small face has fewer pixels than the recognizer reads
    expected = torch.nn.functional.normalize(face.weights[0] * face.vectors[0] + face.weights[1] * face.vectors[1], dim=0)
    torch.testing.assert_close(face.mean(), expected)
    assert face.mean() @ face.vectors[0] > face.mean() @ face.vectors[1]


@pytest.mark.parametrize("picture", [landscape(), torch.zeros(200, 300, 3), torch.rand(256, 256, 3, generator=torch.Generator().manual_seed(1))])
def test_without_a_face_the_sentence_says_what_helps(encoder, picture):
    with pytest.raises(FaceNotFoundError, match="No face was found in the photograph.*detection_size"):
        embed_faces(encoder, [picture])
    with pytest.raises(FaceNotFoundError):
        embed_faces(encoder, [picture, picture], on_missing="skip")


def test_skip_leaves_out_photographs_without_a_face(encoder):
    images = [landscape(), drawn_face(2)[0], landscape(), drawn_face(2, unit=48)[0]]
    assert embed_faces(encoder, images, on_missing="skip").image_index == (1, 3)
    with pytest.raises(FaceNotFoundError, match="photograph 1, 3 of 4.*on_missing to skip"):
        embed_faces(encoder, images)


def test_masks_go_with_the_photographs_they_were_found_in(encoder):
    """Of one size, in another order, and beside a photograph that has none."""
    first, second, other = drawn_face(2)[0], drawn_face(2, unit=40, centre=(120, 130))[0], landscape()
    assert first.shape == second.shape == other.shape
    face = embed_faces(encoder, [first, other, second], on_missing="skip")
    enhanced = EnhancedIdentity(family=None, face=face.mean(), anchor=None, masks=face.masks, photographs=face.photographs)
    one, two = found_masks(enhanced, [second, first])
    assert torch.equal(one, face.masks[1]) and torch.equal(two, face.masks[0]) and not torch.equal(one, two)
    assert torch.equal(found_masks(enhanced, [first])[0], two)
    for strangers in ([other], [first, other], [(first + 1e-3).clamp(0, 1)]):
        assert found_masks(enhanced, strangers) is None
    assert found_masks(replace(enhanced, masks=(), photographs=()), [first]) is None


@pytest.fixture(scope="module")
def crowd():
    return collage(8, 5, 96)


class TestForty:
    """A class photograph of forty."""

    def test_all_are_found(self, encoder, crowd):
        assert len(search_photos(encoder, [crowd])[0].faces) == 40

    @pytest.mark.parametrize("choose, order", [("largest", lambda f: -f.area), ("best score", lambda f: -f.score), ("left to right", lambda f: f.centre[0])])
    def test_they_are_put_in_the_order_of_the_choice(self, encoder, crowd, choose, order):
        photo = search_photos(encoder, [crowd], choose)[0]
        values = [order(face) for face in photo.faces]
        assert values == sorted(values) and photo.chosen == 0

    @pytest.mark.parametrize("index", [0, 7, 8, 39])
    def test_index_counts_in_reading_order(self, encoder, crowd, index):
        photo = search_photos(encoder, [crowd], "index", index)[0]
        x, y = photo.faces[photo.chosen].centre
        assert (int(y // 96), int(x // 96)) == divmod(index, 8)

    def test_an_index_beyond_the_last_face_says_how_many_there_are(self, encoder, crowd):
        with pytest.raises(FaceNotFoundError, match="40 faces, numbered from 0 to 39, but index is 40"):
            embed_faces(encoder, [crowd], "index", 40)

    def test_only_the_chosen_one_is_embedded(self, encoder, crowd):
        face = embed_faces(encoder, [crowd], "index", 12)
        alone = embed_faces(encoder, [crowd[96:192, 4 * 96 : 5 * 96]])
        assert len(face) == 1 and face.vectors[0] @ alone.vectors[0] > 0.8


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_photograph_that_lies_on_its_side_is_found_and_mapped_back(encoder, turns):
    # Not square and not centred, so that a wrong axis would show.
    upright, landmarks = drawn_face(0, centre=(150, 150))
    upright = upright[:290]
    turned = torch.rot90(upright, turns)
    height, width = upright.shape[:2]
    x, y = landmarks.T
    expected = np.stack({1: (y, width - x), 2: (width - x, height - y), 3: (height - y, x)}[turns], axis=1)
    face, straight = embed_faces(encoder, [turned]), embed_faces(encoder, [upright])
    assert near(face.landmarks[0], expected)
    x1, y1, x2, y2 = face.boxes[0]
    assert x1 < expected[:, 0].min() and expected[:, 0].max() < x2 and y1 < expected[:, 1].min() and expected[:, 1].max() < y2
    assert face.vectors[0] @ straight.vectors[0] > 0.95  # the crop is upright again


def test_a_tight_crop_is_found_by_padding(encoder):
    image, landmarks = drawn_face(0, 640, 250.0)
    image, landmarks = image[110:560, 80:560], landmarks - (80, 110)
    pixels = (image.numpy() * 255).round().astype(np.uint8)
    assert not encoder.detect(pixels, 640)
    face = embed_faces(encoder, [image])
    assert np.abs(face.landmarks[0].numpy() - landmarks).max() < 0.35 * 250
    assert face.boxes[0, 0] >= 0 and face.boxes[0, 2] <= image.shape[1] and face.boxes[0, 3] <= image.shape[0]


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_photographs_are_read(encoder, channels):
    image, _ = drawn_face(0)
    other = image.mean(-1, keepdim=True) if channels == 1 else torch.cat([image, torch.rand(*image.shape[:2], 1)], dim=-1)
    assert len(embed_faces(encoder, [other])) == 1
    if channels == 4:
        assert torch.equal(embed_faces(encoder, [other]).vectors, embed_faces(encoder, [image]).vectors)


@pytest.mark.parametrize("image, words", [(torch.rand(1, 1, 3), "1×1"), (torch.full((64, 64, 3), float("nan")), "not finite"), (torch.rand(64, 64, 2), "channels")])
def test_a_picture_that_is_none_is_refused_with_its_number(encoder, image, words):
    with pytest.raises(BadImageError, match=f"Photograph 2.*{words}"):
        embed_faces(encoder, [drawn_face(0)[0], image])


def test_the_preview_numbers_every_face_and_marks_the_chosen(encoder):
    crowd, nobody = collage(3, 2, 160), landscape(200)
    found = search_photos(encoder, [crowd, nobody], "index", 3)
    x, y = found[0].faces[3].centre
    pictures = draw_preview([crowd, nobody], found)
    assert [tuple(p.shape) for p in pictures] == [(320, 480, 3), (200, 200, 3)]
    green = ((pictures[0] - torch.tensor([64, 220, 96]) / 255).abs().sum(-1) < 0.02).nonzero().float().mean(0)
    assert abs(green[0] - y) < 30 and abs(green[1] - x) < 30
    assert not torch.equal(pictures[1], nobody)  # says that there is no face


def test_aligned_landmarks_land_on_the_template():
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = (ARCFACE_TEMPLATE @ turn.T) * 3.1 + (40, 200)
    matrix = similarity_to_template(landmarks)
    np.testing.assert_allclose(landmarks @ matrix[:, :2].T + matrix[:, 2], ARCFACE_TEMPLATE, atol=1e-3)


def test_alignment_agrees_with_insightface():
    from insightface.utils.face_align import estimate_norm

    landmarks = np.array([[95, 120], [161, 124], [130, 160], [104, 186], [150, 190]], dtype=np.float32)
    np.testing.assert_allclose(similarity_to_template(landmarks), estimate_norm(landmarks), atol=1e-3)
    assert align_face(np.zeros((50, 50, 3), np.uint8), np.zeros((5, 2), np.float32)).shape == (112, 112, 3)


class TestPack:
    """A pack is known by what its files are."""

    @staticmethod
    def folder(pack, place, *names):
        place.mkdir(parents=True)
        for name in names:
            shutil.copy(pack / name, place / f"model_{name[0]}.onnx")
        return place

    def test_files_are_told_apart_by_their_shapes(self, pack):
        assert (onnx_task(pack / "detector.onnx"), onnx_task(pack / "recognizer.onnx")) == ("detection", "recognition")

    def test_a_pack_nested_one_folder_too_deep_is_found(self, pack, tmp_path):
        self.folder(pack, tmp_path / "antelopev2" / "antelopev2", "detector.onnx", "recognizer.onnx")
        encoder = load_face_model(tmp_path / "antelopev2", "CPU", 320)
        assert len(embed_faces(encoder, [drawn_face(0)[0]])) == 1
        assert "non-commercial research only" in encoder.licence

    def test_a_linked_pack_is_found(self, pack, tmp_path):
        (tmp_path / "models").mkdir()
        try:
            (tmp_path / "models" / "demo").symlink_to(pack, target_is_directory=True)
        except OSError:
            pytest.skip("no symbolic links here")
        assert open_face_pack(tmp_path).folder == tmp_path / "models" / "demo"

    @pytest.mark.parametrize("present, absent", [("detector.onnx", "a face recognizer"), ("recognizer.onnx", "a face detector")])
    def test_a_missing_half_is_named_with_every_folder_searched(self, pack, tmp_path, present, absent):
        folder, elsewhere = self.folder(pack, tmp_path / "half", present), tmp_path / "elsewhere"
        with pytest.raises(FaceModelError) as error:
            open_face_pack(folder, [elsewhere])
        message = str(error.value)
        assert f"Expected {absent}" in message and str(folder) in message and str(elsewhere) in message and "model_" in message

    def test_an_empty_or_missing_folder_has_its_sentence(self, tmp_path):
        for folder in (tmp_path, tmp_path / "nowhere"):
            with pytest.raises(FaceModelError, match="no .onnx file.*Expected a face detector.*allow_download"):
                open_face_pack(folder)

    def test_a_truncated_file_is_no_model(self, pack, tmp_path):
        folder = self.folder(pack, tmp_path / "broken", "detector.onnx")
        (folder / "recognizer.onnx").write_bytes((pack / "recognizer.onnx").read_bytes()[:5000])
        with pytest.raises(FaceModelError, match="unreadable"):
            open_face_pack(folder)

    def test_links_to_nothing_and_empty_files_are_unreadable(self, pack, tmp_path):
        folder = self.folder(pack, tmp_path / "linked", "detector.onnx")
        (folder / "b.onnx").symlink_to(tmp_path / "nowhere.onnx")
        (folder / "c.onnx").symlink_to(folder / "c.onnx")
        (folder / "d.onnx").write_bytes(b"")
        with pytest.raises(FaceModelError, match="b.onnx .unreadable., c.onnx .unreadable., d.onnx .unreadable."):
            open_face_pack(folder)
        (folder / "LICENSE").symlink_to(tmp_path / "nowhere")
        shutil.copy(pack / "recognizer.onnx", folder / "e.onnx")
        assert open_face_pack(folder).licence == "unknown licence"

    @pytest.mark.parametrize("order", [[8, 7, 6, 5, 4, 3, 2, 1, 0], [3, 4, 5, 0, 1, 2, 6, 7, 8], [6, 7, 8, 3, 4, 5, 0, 1, 2]])
    def test_a_detector_whose_outputs_come_in_another_order_is_named(self, pack, tmp_path, order):
        import onnx

        folder = self.folder(pack, tmp_path / "permuted", "recognizer.onnx")
        model = onnx.load(pack / "detector.onnx")
        outputs = [type(model.graph.output[0]).FromString(model.graph.output[number].SerializeToString()) for number in order]
        del model.graph.output[:]
        model.graph.output.extend(outputs)
        onnx.save(model, folder / "detector.onnx")
        encoder = load_face_model(folder, "CPU", 320)
        with pytest.raises((FaceModelError, FaceNotFoundError), match="detector.onnx failed on a picture|No face was found"):
            embed_faces(encoder, [drawn_face(0)[0]])

    @pytest.mark.parametrize("ratio", [71, 400])
    def test_a_picture_as_thin_as_a_ribbon_has_no_face(self, pack, ratio):
        encoder = load_face_model(pack, "CPU", 320)
        for shape in ((16, 16 * ratio, 3), (16 * ratio, 16, 3)):
            with pytest.raises(FaceNotFoundError):
                embed_faces(encoder, [torch.rand(*shape)])

    def test_a_licence_is_one_harmless_line(self, pack, tmp_path):
        folder = self.folder(pack, tmp_path / "mine", "detector.onnx", "recognizer.onnx")
        (folder / "LICENSE").write_bytes("Free\x1b[2J\n\u202e".encode() + b"\xff" + b"x" * 5_000_000)
        assert "\x1b" not in open_face_pack(folder).licence and len(open_face_pack(folder).licence) < 330

    def test_a_licence_file_wins_over_a_known_name(self, pack, tmp_path):
        folder = self.folder(pack, tmp_path / "buffalo_l", "detector.onnx", "recognizer.onnx")
        assert "non-commercial" in open_face_pack(folder).licence
        (folder / "LICENCE.txt").write_text("Ours.\nAll of it.", encoding="utf-8")
        assert open_face_pack(folder).licence == "Ours. All of it."

    def test_an_unknown_pack_has_an_unknown_licence(self, pack, tmp_path):
        assert open_face_pack(self.folder(pack, tmp_path / "mine", "detector.onnx", "recognizer.onnx")).licence == "unknown licence"

    def test_a_detection_size_the_detector_cannot_take_is_refused(self, pack):
        with pytest.raises(FaceModelError, match="detection_size is 100, expected a multiple of 32"):
            load_face_model(pack, "CPU", 100)

    def test_a_provider_that_is_not_here_is_refused(self, pack):
        import onnxruntime

        provider, absent = ("DmlExecutionProvider", "DirectML") if sys.platform != "win32" else ("CoreMLExecutionProvider", "CoreML")
        assert provider not in onnxruntime.get_available_providers()
        with pytest.raises(FaceModelError, match=f"{absent} does not work here.*auto or CPU"):
            load_face_model(pack, absent)

    def test_the_demo_pack_is_small_and_always_the_same(self, pack, tmp_path):
        from launcher.stand_ins.face_pack import make_face_pack

        again = make_face_pack(tmp_path / "again")
        assert sum(file.stat().st_size for file in pack.iterdir()) < 2_000_000
        assert all((again / file.name).read_bytes() == file.read_bytes() for file in pack.iterdir())

    def test_nothing_is_printed_while_loading(self, pack, capfd):
        load_face_model(pack, "CPU", 320)
        assert capfd.readouterr().out == ""


@pytest.mark.parametrize("missing", ["insightface", "onnxruntime"])
def test_a_missing_package_is_one_sentence_at_use(missing, tmp_path):
    code = f"""
import sys, importlib.util
sys.modules[{missing!r}] = None
spec = importlib.util.spec_from_file_location("idea_engine", {str(ROOT / "idea_engine" / "__init__.py")!r}, submodule_search_locations=[{str(ROOT / "idea_engine")!r}])
sys.modules["idea_engine"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["idea_engine"])
from idea_engine.errors import FaceModelError
from idea_engine.faces.insightface_encoder import load_face_model
try:
    load_face_model({str(tmp_path)!r})
except FaceModelError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "insightface cannot be imported" in done.stdout and "pip install" in done.stdout and "restart ComfyUI" in done.stdout
