"""What the command line and ComfyUI share of a check: pictures of a backend, and figures of them."""
from pathlib import Path

import pytest
import torch

import portrait_world
from idea_engine.errors import EvaluationError, FaceNotFoundError, TrainingError
from idea_engine.faces.embed import embed_faces
from idea_engine.faces.insightface_encoder import load_face_model
from idea_engine.files.pictures import read_photo
from idea_engine.judging.base_advice import RATES, keep_advice
from idea_engine.methods import build
from idea_engine.prompts.evaluation import evaluation_prompts
from idea_engine.training.base_check import PRESETS, BaseCheck, check_config, learn_and_paint, said
from idea_engine.training.previews import TEMPLATE, PreviewPainter, paint
from idea_engine.training.report import TrainReport

WORLD = Path(portrait_world.__file__).parent
REPORT = TrainReport((0.5, 0.4), 0, 0, 1.0, 1, False, False, (), 2)
PROMPTS = evaluation_prompts()[:2]


@pytest.fixture(scope="module")
def pack():
    return load_face_model(WORLD / "assets" / "face_pack", "CPU", 320)


@pytest.fixture(scope="module")
def anna():
    return read_photo(WORLD.parent / "example_workflows" / "anna.png")


@pytest.fixture
def checked(pack, anna):
    """A check in which the model draws an even grey, another for every seed."""
    def grey(text, seed):
        return torch.full((128, 128, 3), 0.2 + (seed % 7000) / 10000)

    return BaseCheck(anna, [], PROMPTS, measure=lambda picture: _measured(pack, picture), encoder=pack, draw=grey)


def _measured(pack, picture):
    try:
        return embed_faces(pack, [picture]).mean()
    except FaceNotFoundError:
        return None


def untouched(backend):
    return {name: value.clone() for name, value in backend.unet.state_dict().items()}


def test_a_picture_is_drawn_as_a_preview_is_and_without_anybody_nobody_acts(any_backend, enhance):
    backend = any_backend
    enhanced = enhance(backend)
    module = build(enhanced, check_config("fast", 1.0, 64, 0).resolved(), backend.block_widths)
    count = next(iter(enhanced.anchor.rows.values())).shape[0]
    painter = PreviewPainter(backend, count, (4, 8, 8), seed=3)
    with backend.training():
        latents = painter.latents(module)
    drawn = paint(backend, TEMPLATE, 64, 3, module, count)
    assert torch.equal(drawn, backend.decode_latents(latents)[0]) and drawn.shape == (64, 64, 3) and drawn.dtype == torch.float32
    bare = paint(backend, "a photo of a person", 64, 3)
    assert torch.equal(bare, paint(backend, "a photo of a person", 64, 3))
    assert torch.equal(paint(backend, PROMPTS[0], 64, 3, module, count, start=1.0), paint(backend, PROMPTS[0], 64, 3))  # the person never comes in
    late = paint(backend, TEMPLATE, 64, 3, module, count, start=0.1)
    assert not torch.equal(late, drawn) and not torch.equal(late, paint(backend, TEMPLATE, 64, 3))
    for other in (paint(backend, "a photo of a house", 64, 3), paint(backend, "a photo of a person", 64, 4), drawn):
        assert (bare - other).abs().max() > 1e-4


def test_the_person_is_learned_and_every_prompt_drawn_and_the_model_stays(backend, enhance, photo):
    enhanced, before, asked = enhance(backend), untouched(backend), []
    config = check_config("fast", 2.0, 64, 0, steps=2)
    seeded = [(prompt, 1000 * number) for number, prompt in enumerate(PROMPTS)]
    report, pictures = learn_and_paint(backend, enhanced, photo, config, seeded, before_picture=lambda: asked.append(len(asked)))
    assert len(report.losses) == 2 and asked == [0, 1] and [picture.shape for picture in pictures] == [(64, 64, 3)] * 2
    _, tamer = learn_and_paint(backend, enhanced, photo, check_config("fast", 0.5, 64, 0, steps=2), seeded)
    assert not torch.equal(pictures[0], tamer[0])  # another rate, another person
    assert all(torch.equal(value, before[name]) for name, value in backend.unet.state_dict().items())


def test_a_rate_is_judged_and_the_sheet_has_a_row_for_it(checked, anna):
    same = checked.try_rate("fast", 1.0, lambda: (REPORT, [anna, checked._plain[1]]))
    assert same.faces == 0.5 and same.likeness == pytest.approx(0.5, abs=1e-3) and same.finite  # the photograph itself, and nobody
    assert said("fast", same).startswith("fast × 1: likeness 0.50, prompt ")
    nobody = checked.try_rate("fast", 0.5, lambda: (REPORT, checked._plain))
    assert (nobody.likeness, nobody.faces, nobody.prompt) == (0.0, 0.0, 1.0)  # the scene as it was, without the person
    assert "one photograph only" in checked.notes[0] and not checked.calibrated
    assert checked.sheet().shape == (4 + 3 * (192 + 22 + 4), 4 + 3 * 196, 3)


def test_a_loss_that_is_not_finite_is_a_result_and_other_errors_are_not(checked):
    def fails(sentence):
        raise TrainingError(sentence)

    hot = checked.try_rate("best", 2.0, lambda: fails("The loss was not finite 3 times in a row"))
    assert not hot.finite and hot.worth == 0.0 and said("best", hot).endswith("the loss was not finite")
    with pytest.raises(TrainingError, match="memory"):
        checked.try_rate("best", 1.0, lambda: fails("There is not enough memory"))
    assert len(checked.tried["best"]) == 1


def test_a_photograph_without_a_face_is_a_sentence(pack):
    with pytest.raises(EvaluationError, match="no face in the first photograph"):
        BaseCheck(torch.full((64, 64, 3), 0.5), [], PROMPTS, measure=lambda picture: _measured(pack, picture), encoder=pack, draw=None)


@pytest.mark.parametrize("recipe", PRESETS)
@pytest.mark.parametrize("rate", RATES)
def test_nothing_but_the_rate_differs_from_the_recipe(recipe, rate):
    own, tried = check_config(recipe, 1.0, 64, 0).resolved(), check_config(recipe, rate, 64, 0).resolved()
    assert tried.lr == pytest.approx(rate * own.lr) and tried.steps == own.steps and tried.batch == own.batch


def test_advice_is_put_where_it_is_found_and_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    assert keep_advice(tmp_path, "a" * 16, b"{}").read_bytes() == b"{}"
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EvaluationError, match="cannot be kept as"):
        keep_advice(tmp_path / "file", "a" * 16, b"{}")
