"""Looking at a training from outside: previews, the best step, and stopping early."""
import pytest
import torch

from idea_engine.backends.templates import prompt_inputs, tokenize_template
from idea_engine.identity.operations import named_tensors
from idea_engine.methods import build
from idea_engine.training.checkpoint import Checkpoint
from idea_engine.training.config import TrainConfig
from idea_engine.training.loop import train
from idea_engine.training.previews import GUIDANCE, SAMPLER_STEPS, TEMPLATE, PreviewPainter, Previews
from idea_engine.training.prior import elsewhere

CONFIG = TrainConfig(steps=6, batch=1, resolution=64)


class Cancelled(Exception):
    pass


def same(a, b):
    left, right = named_tensors(a), named_tensors(b)
    assert left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def brightness(pictures):
    """A judge that depends on the pictures alone."""
    return float(pictures.mean())


def test_a_preview_is_plain_ddim_with_guidance(any_backend, enhance):
    """Against the textbook recursion on the noisy picture, which the painter never holds."""
    backend = any_backend
    enhanced = enhance(backend)
    module = build(enhanced, CONFIG.resolved(), backend.block_widths)
    count = next(iter(enhanced.anchor.rows.values())).shape[0]
    painter = PreviewPainter(backend, count, (4, 8, 8), seed=3)
    with backend.training():
        found = painter.latents(module)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    empty = backend.tokenize("", "", 0)
    plain = backend.encode_text(prompt_inputs(backend, [empty], {}), [empty.end])
    times = torch.linspace(backend.timesteps - 1, 0, SAMPLER_STEPS + 1)[:-1].long()
    level = backend.alphas[times]
    x = (1 - level[0]).sqrt() * noise
    with torch.no_grad():
        for i, t in enumerate(times):
            signal, sigma = level[i].sqrt(), (1 - level[i]).sqrt()
            condition, edit = module.read(backend, [tokenize_template(backend, TEMPLATE, count)], [0], t[None])
            wanted, other = (
                backend.predict(torch.zeros_like(x), x / sigma, t[None], *given).output for given in ((condition, edit), (plain, elsewhere(module, x)))
            )
            output = other + GUIDANCE * (wanted - other)
            if backend.prediction_type == "epsilon":
                clean, eps = (x - sigma * output) / signal, output
            else:
                clean, eps = signal * x - sigma * output, sigma * x + signal * output
            x = clean if i + 1 == len(times) else level[i + 1].sqrt() * clean + (1 - level[i + 1]).sqrt() * eps
    assert found.abs().max() > 0.1
    torch.testing.assert_close(found, x, rtol=1e-3, atol=1e-3 * float(x.abs().max()))


def test_pictures_come_back_from_latents(any_backend, photo):
    pictures = any_backend.decode_latents(any_backend.encode_images(photo[None]))
    assert pictures.shape == (1, *photo.shape) and pictures.dtype == torch.float32
    assert pictures.min() >= 0 and pictures.max() <= 1 and not pictures.requires_grad


def test_previews_that_are_not_judged_change_nothing(backend, enhance, photo):
    enhanced, seen = enhance(backend), []
    plain, before = train(backend, enhanced, [photo], CONFIG)
    shown, report = train(backend, enhanced, [photo], CONFIG, previews=Previews(4, show=seen.append))
    same(plain, shown)
    assert shown.metadata == plain.metadata and report.losses == before.losses and report.best_step == 6
    assert [preview.step for preview in seen] == [4, 6] and all(preview.likeness is None for preview in seen)
    assert seen[0].pictures.shape == (1, 64, 64, 3)


def test_the_same_training_shows_the_same_previews_and_they_follow_what_is_learned(backend, enhance, photo):
    enhanced = enhance(backend)
    runs = []
    for _ in range(2):
        runs.append([])
        train(backend, enhanced, [photo], CONFIG, previews=Previews(3, show=runs[-1].append))
    assert all(torch.equal(a.pictures, b.pictures) for a, b in zip(*runs))
    assert not torch.equal(runs[0][0].pictures, runs[0][1].pictures)


def test_the_most_alike_step_is_returned_and_the_later_of_equals(backend, enhance, photo):
    enhanced, modules, seen = enhance(backend), [], []

    def remembered(*given):
        modules.append(build(*given))
        return modules[-1]

    def show(preview):
        seen.append({name: p.detach().clone() for name, p in modules[-1].named_parameters()})

    marks = iter([0.1, 0.7, 0.7, 0.3, 0.2, 0.5])
    found, report = train(
        backend, enhanced, [photo], CONFIG, previews=Previews(1, judge=lambda pictures: next(marks), show=show), build=remembered
    )
    assert report.best_step == 3 and report.likenesses[3] == (4, 0.3)
    assert found.metadata.config["best_step"] == 3 and len(found.metadata.config["losses"]) == 6
    third, last = seen[2], seen[5]
    assert all(torch.equal(p, third[name]) for name, p in modules[-1].named_parameters())
    assert any(not torch.equal(p, last[name]) for name, p in modules[-1].named_parameters())
    torch.testing.assert_close(found.tokens["clip_l"].float(), third["tokens.clip_l"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("cancelled_at", [1, 2, 5])
def test_a_resumed_training_knows_the_best_step_of_before(backend, enhance, photo, tmp_path, cancelled_at):
    enhanced, checkpoint = enhance(backend), Checkpoint(tmp_path / "run.partial")

    def darkness(pictures):
        return -brightness(pictures)

    def cancel(event):
        if event.step == cancelled_at:
            raise Cancelled

    for judge in (brightness, darkness):  # of the two, one has its best step early
        previews = Previews(2, judge=judge)
        whole, expected = train(backend, enhanced, [photo], CONFIG, previews=previews)
        with pytest.raises(Cancelled):
            train(backend, enhanced, [photo], CONFIG, on_step=cancel, checkpoint=checkpoint, previews=previews)
        resumed, report = train(backend, enhanced, [photo], CONFIG, checkpoint=checkpoint, previews=previews)
        same(resumed, whole)
        assert report.resumed_at == cancelled_at
        assert (report.likenesses, report.best_step) == (expected.likenesses, expected.best_step)


def test_a_preview_that_was_interrupted_is_made_up_for(backend, enhance, photo, tmp_path):
    enhanced, checkpoint = enhance(backend), Checkpoint(tmp_path / "run.partial")
    calls = []

    def interrupted(pictures):
        calls.append(1)
        if len(calls) == 2:
            raise Cancelled
        return brightness(pictures)

    whole, expected = train(backend, enhanced, [photo], CONFIG, previews=Previews(2, judge=brightness))
    with pytest.raises(Cancelled):
        train(backend, enhanced, [photo], CONFIG, checkpoint=checkpoint, previews=Previews(2, judge=interrupted))
    resumed, report = train(backend, enhanced, [photo], CONFIG, checkpoint=checkpoint, previews=Previews(2, judge=interrupted))
    assert report.resumed_at == 4 and report.likenesses == expected.likenesses
    same(resumed, whole)


def test_stop_ends_with_the_best_so_far_and_the_rest_can_still_be_learned(backend, enhance, photo, tmp_path):
    enhanced, checkpoint, steps = enhance(backend), Checkpoint(tmp_path / "run.partial"), []
    whole, _ = train(backend, enhanced, [photo], CONFIG)
    stopped, report = train(
        backend, enhanced, [photo], CONFIG, on_step=lambda event: steps.append(event.step), checkpoint=checkpoint, stop=lambda: len(steps) == 3
    )
    assert report.stopped and steps == [1, 2, 3] and len(report.losses) == 3 and report.best_step == 3
    assert not torch.equal(stopped.tokens["clip_l"], whole.tokens["clip_l"])
    resumed, report = train(backend, enhanced, [photo], CONFIG, checkpoint=checkpoint)
    assert report.resumed_at == 3 and not report.stopped and not checkpoint.path.exists()
    same(resumed, whole)


def test_without_memory_for_previews_training_goes_on(backend, enhance, photo, monkeypatch):
    def decode(latents):
        raise torch.OutOfMemoryError("no memory")

    enhanced = enhance(backend)
    plain, _ = train(backend, enhanced, [photo], CONFIG)
    monkeypatch.setattr(backend, "decode_latents", decode)
    seen = []
    found, report = train(backend, enhanced, [photo], CONFIG, previews=Previews(2, judge=brightness, show=seen.append))
    assert not seen and report.likenesses == () and report.best_step == 6
    same(found, plain)
