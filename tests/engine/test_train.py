"""The training loop on tiny real models of all families."""
import math
import weakref
from dataclasses import replace

import pytest
import torch

from idea_engine.backends.base import Prediction
from idea_engine.errors import BadImageError, TrainingError, TriggerError
from idea_engine.identity.operations import named_tensors
from idea_engine.methods import RECIPES, build
from idea_engine.methods.id_ea import BALANCED, BEST, FAST, PAPER, RELEASED
from idea_engine.training.batch import draw_batch
from idea_engine.training.checkpoint import Checkpoint
from idea_engine.training.config import TrainConfig, prompt_templates
from idea_engine.training.loop import _Run, train
from idea_engine.training.pictures import prepare_masks, prepare_photos
from recipes import CONDITIONED

SHORT = dict(steps=4, batch=2, resolution=64)


def same(a, b):
    left, right = named_tensors(a), named_tensors(b)
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


# Any recipe may take up either idea of SeFi-IDE, or both.
VARIANTS = {
    **{name: {"recipe": name} for name in RECIPES},
    "conditioned on the face": {"given": CONDITIONED},
    "fast in stages": {"recipe": "fast", "stages": 3},
    "fast with attention": {"recipe": "fast", "attention": "face_word"},
    "paper with both": {"recipe": "paper", "stages": 2, "attention": "face_word"},
    "sefi without attention": {"recipe": "sefi", "attention": "off"},
}


def run_of(backend, enhanced, photo, given=None, **config):
    """A training that has not begun; ``given``: a recipe instead of a name. The face is in the middle of the photograph."""
    config = TrainConfig(**{**SHORT, **config})
    recipe = config.resolved() if given is None else replace(given, steps=config.steps, batch=config.batch)
    mask = torch.zeros(photo.shape[:2])
    mask[18:54, 16:48] = 1.0
    faces = prepare_masks([mask], [photo], config.resolution)
    return _Run(backend, enhanced, recipe, config, prepare_photos([photo], config.resolution), build, faces)


def fixed_loss(run, seed=99, size=8):
    """Noise loss on a fixed set of noise, timesteps and prompts."""
    batch = draw_batch(seed, 0, size, len(run.latents), len(run.config.templates), run.latents.shape[1:], run.backend.timesteps)
    with torch.no_grad():
        return run.picture_losses(batch, slice(0, size)).mean()


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_of_every_trained_part_agree_with_finite_differences(any_backend, enhance, photo, variant):
    run = run_of(any_backend, enhance(any_backend), photo, **VARIANTS[variant])
    run.learns_from = 0  # finite differences see the whole UNet
    torch.manual_seed(0)
    with torch.no_grad():  # away from the no-op start, where half of the gradients are zero by construction
        run.module.adapter.gamma.fill_(0.5)
        for parameter in [*run.module.key_value.offsets(), *run.module.global_key, *run.module.global_value]:
            parameter.normal_(std=0.05)
        for parameter in [*run.module.tokens.values(), *run.module.parts().get("stages", [])]:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    batch = draw_batch(0, 0, 2, len(run.latents), len(run.config.templates), run.latents.shape[1:], any_backend.timesteps)

    def loss():
        return run.picture_losses(batch, slice(0, 2)).mean() + run.module.regularizer()

    with any_backend.training():
        loss().backward()
        for part in run.recipe.trains:
            parameters = run.module.parts()[part]
            gradients = [p.grad for p in parameters]
            assert all(g is not None for g in gradients), part
            norm = torch.stack([g.norm() for g in gradients]).norm()
            assert norm > 0, part
            directions = [g / norm for g in gradients]
            size = min(2e-3 * float(torch.stack([p.detach().norm() for p in parameters]).norm()) + 1e-3, 5e-2)

            def moved(step):
                with torch.no_grad():
                    for p, d in zip(parameters, directions):
                        p.add_(d, alpha=step)
                    value = loss().item()
                    for p, d in zip(parameters, directions):
                        p.add_(d, alpha=-step)
                return value

            slope = (moved(size) - moved(-size)) / (2 * size)
            # float32 loss of about 1 resolves 1e-7; allow for it beside 2 %.
            assert abs(slope - norm.item()) <= 0.02 * norm.item() + 3e-7 / size, (part, slope, norm.item())


def test_a_gradient_through_the_decoder_alone_is_the_whole_one_where_the_decoder_reads_and_nothing_elsewhere(any_backend, enhance, photo):
    run = run_of(any_backend, enhance(any_backend), photo)
    assert run.learns_from == any_backend.encoder_blocks > 0
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in run.module.key_value.parameters():
            parameter.normal_(std=0.05)
    batch = draw_batch(0, 0, 2, len(run.latents), len(run.config.templates), run.latents.shape[1:], any_backend.timesteps)

    def gradients(first):
        run.learns_from = first
        run.optimizer.zero_grad(set_to_none=True)
        kept = 0

        def keep(tensor):
            nonlocal kept
            kept += tensor.nbytes
            return tensor

        with any_backend.training():
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                losses = run.picture_losses(batch, slice(0, 2))
            losses.sum().backward()
        parts = run.module.parts()
        return losses.detach(), [p.grad for p in parts["key_value"]], [p.grad for p in parts["tokens"]], kept

    losses, whole, whole_tokens, kept_whole = gradients(0)
    same, decoder, tokens, kept = gradients(any_backend.encoder_blocks)
    assert torch.equal(losses, same) and kept < 0.9 * kept_whole
    for a, b in zip(whole, decoder):
        assert b[: any_backend.encoder_blocks].abs().max() == 0 < a[: any_backend.encoder_blocks].abs().max()
        torch.testing.assert_close(a[any_backend.encoder_blocks :], b[any_backend.encoder_blocks :])
    for a, b in zip(whole_tokens, tokens):
        assert 0 < b.abs().max() and not torch.equal(a, b)


def test_relative_rates_follow_the_size_of_what_they_move(any_backend, enhance, photo):
    enhanced = enhance(any_backend)

    def rates(factor):
        larger = replace(enhanced, anchor=replace(enhanced.anchor, rows={key: rows * factor for key, rows in enhanced.anchor.rows.items()}))
        run = run_of(any_backend, larger, photo, given=replace(RECIPES["balanced"], start="anchor"))
        return [group["lr"] for group in run.optimizer.param_groups]

    torch.testing.assert_close(torch.tensor(rates(3.0)), 3 * torch.tensor(rates(1.0)))
    absolute = run_of(any_backend, enhanced, photo, given=replace(RECIPES["balanced"], relative=False))
    step = 0.006 * 4  # of the recipe's four pictures, although there are two
    assert sorted({group["lr"] for group in absolute.optimizer.param_groups}) == pytest.approx([step, step * 2, step * 22])


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda r: r.name)
def test_after_30_steps_the_loss_has_fallen_and_exactly_the_recipes_parts_have_changed(any_backend, enhance, photo, recipe):
    run = run_of(any_backend, enhance(any_backend), photo, recipe=recipe.name, steps=30, batch=4)
    before = {part: [p.detach().clone() for p in parameters] for part, parameters in run.module.parts().items()}
    loss_before = fixed_loss(run)
    run.execute(lambda event: None, None, 0.0)
    assert fixed_loss(run) < loss_before
    for part, parameters in run.module.parts().items():
        changed = [not torch.equal(old, new) for old, new in zip(before[part], parameters)]
        if part in recipe.trains:
            assert changed and all(changed), part
        else:
            assert not any(changed), part


def test_training_leaves_the_models_bit_for_bit_as_they_were(any_backend, enhance, photo):
    models = [any_backend.unet, any_backend.vae, *any_backend.encoders.values()]
    before = [{k: v.clone() for k, v in model.state_dict().items()} for model in models]
    parameters = [dict(model.named_parameters()) for model in models]
    train(any_backend, enhance(any_backend), [photo], TrainConfig(recipe="paper", **SHORT))
    for model, state, objects in zip(models, before, parameters):
        assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
        assert all(objects[k] is v for k, v in model.named_parameters())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_optimizer_holds_a_few_rows_and_no_table_or_unet_weight(backend, enhance, photo):
    run = run_of(backend, enhance(backend), photo, recipe="released")
    optimized = [p for group in run.optimizer.param_groups for p in group["params"]]
    model_storages = {p.untyped_storage().data_ptr() for m in (backend.unet, backend.vae, *backend.encoders.values()) for p in m.parameters()}
    assert not {p.untyped_storage().data_ptr() for p in optimized} & model_storages
    assert sorted(p.numel() for p in run.module.parts()["tokens"]) == [2 * 32]
    assert max(p.shape[0] for p in run.module.parts()["tokens"]) == 2


def test_each_latent_is_encoded_once_with_its_mirror_image(backend, enhance, photo, monkeypatch):
    seen = []
    encode = backend.encode_images
    monkeypatch.setattr(backend, "encode_images", lambda images: seen.append(images) or encode(images))
    train(backend, enhance(backend), [photo, photo.flip(0)], TrainConfig(**SHORT))
    assert len(seen) == 4 and torch.equal(seen[0], seen[2].flip(2)) and torch.equal(seen[1], seen[3].flip(2))


def test_a_fixed_seed_gives_the_same_identity_and_another_seed_another(backend, enhance, photo):
    enhanced = enhance(backend)
    first, _ = train(backend, enhanced, [photo], TrainConfig(seed=5, **SHORT))
    torch.manual_seed(12345)
    second, _ = train(backend, enhanced, [photo], TrainConfig(seed=5, **SHORT))
    third, _ = train(backend, enhanced, [photo], TrainConfig(seed=6, **SHORT))
    same(first, second)
    assert not torch.equal(first.tokens["clip_l"], third.tokens["clip_l"])


def test_training_works_inside_inference_mode_as_hosts_call_it(backend, enhance, photo):
    with torch.inference_mode():
        enhanced = enhance(backend)
        inside, _ = train(backend, enhanced, [photo.clone()], TrainConfig(**SHORT))
    outside, _ = train(backend, enhance(backend), [photo], TrainConfig(**SHORT))
    same(inside, outside)
    assert not inside.tokens["clip_l"].is_inference()


class Cancelled(Exception):
    pass


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_cancelled_training_resumes_to_the_very_same_identity(backend, enhance, photo, tmp_path, recipe):
    enhanced, config = enhance(backend), TrainConfig(recipe=recipe, steps=6, batch=2, resolution=64)
    whole, _ = train(backend, enhanced, [photo], config)
    checkpoint = Checkpoint(tmp_path / "run.partial")

    def cancel_at_3(event):
        if event.step == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        train(backend, enhanced, [photo], config, on_step=cancel_at_3, checkpoint=checkpoint)
    assert checkpoint.path.is_file()
    steps = []
    resumed, report = train(backend, enhanced, [photo], config, on_step=lambda e: steps.append(e.step), checkpoint=checkpoint)
    assert report.resumed_at == 3 and steps == [4, 5, 6] and len(report.losses) == 6
    same(resumed, whole)
    assert not checkpoint.path.exists()


@pytest.mark.parametrize("fails", [OSError(28, "No space left on device"), None], ids=["raises", "says so"])
def test_a_finished_training_is_not_forgotten_before_it_is_safe(backend, enhance, photo, tmp_path, fails):
    """A full disk when the file is written: after a restart nothing has to be learned again."""
    enhanced, config = enhance(backend), TrainConfig(**SHORT)
    whole, _ = train(backend, enhanced, [photo], config)
    checkpoint, there = Checkpoint(tmp_path / "run.partial"), []

    def full(identity):
        if fails is not None:
            raise fails
        return False

    if fails is None:
        train(backend, enhanced, [photo], config, checkpoint=checkpoint, keep=full)
    else:
        with pytest.raises(OSError):
            train(backend, enhanced, [photo], config, checkpoint=checkpoint, keep=full)
    assert checkpoint.kept == config.resolved().steps
    after_restart, steps = Checkpoint(checkpoint.path), []

    def keep(identity):
        there.append(checkpoint.path.is_file())
        return True

    again, report = train(backend, enhanced, [photo], config, on_step=steps.append, checkpoint=after_restart, keep=keep)
    assert steps == [] and there == [True] and report.resumed_at == config.resolved().steps and not checkpoint.path.exists()
    same(again, whole)


def test_a_resumed_training_does_not_hold_on_to_its_file(backend, enhance, photo, tmp_path):
    """Windows deletes no file that is mapped into memory, and the last step deletes this one."""
    enhanced, config = enhance(backend), TrainConfig(steps=3, batch=1, resolution=64)
    checkpoint = Checkpoint(tmp_path / "run.partial")

    def cancel_at_2(event):
        if event.step == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        train(backend, enhanced, [photo], config, on_step=cancel_at_2, checkpoint=checkpoint)
    run = run_of(backend, enhanced, photo, steps=3, batch=1)
    checkpoint.load(run.module, run.optimizer)
    moments = [state["exp_avg"].clone() for state in run.optimizer.state.values()]
    size = checkpoint.path.stat().st_size
    with checkpoint.path.open("r+b") as file:
        file.write(bytes(size))
    assert all(torch.equal(old, state["exp_avg"]) and state["step"] == 2 for old, state in zip(moments, run.optimizer.state.values()))


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_checkpoint_only_costs_the_time(backend, enhance, photo, tmp_path, damage):
    checkpoint = Checkpoint(tmp_path / "run.partial")
    if damage is None:
        from safetensors.torch import save_file

        save_file({"module.tokens.clip_l": torch.zeros(5, 5)}, checkpoint.path, {"progress": '{"step": 1, "losses": [], "skipped": 0, "loss_scale": 1}'})
    else:
        checkpoint.path.write_bytes(damage)
    fresh, _ = train(backend, enhance(backend), [photo], TrainConfig(**SHORT))
    found, report = train(backend, enhance(backend), [photo], TrainConfig(**SHORT), checkpoint=checkpoint)
    assert report.resumed_at == 0
    same(found, fresh)


def test_micro_batches_give_the_gradients_of_the_whole_batch(backend, enhance, photo):
    enhanced = enhance(backend)
    whole, small = (run_of(backend, enhanced, photo, recipe="paper", batch=6, micro_batch=m) for m in (6, 2))
    for run in (whole, small):
        with backend.training():
            run.loss = run._backward()
    assert math.isclose(whole.loss, small.loss, rel_tol=1e-5)
    for a, b in zip(whole.module.parameters(), small.module.parameters()):
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)


def wrapped(backend, predict):
    """The backend with another ``predict``; everything else is the real one."""

    class Wrapped:
        def __getattr__(self, name):
            return getattr(backend, name)

    result = Wrapped()
    result.predict = predict
    return result


def test_out_of_memory_is_answered_with_less_memory_and_the_same_result(backend, enhance, photo):
    sizes = []

    def predict(latents, *rest):
        sizes.append(len(latents))
        if len(latents) > 2:
            raise torch.OutOfMemoryError("no memory")
        return backend.predict(latents, *rest)

    enhanced, config = enhance(backend), TrainConfig(recipe="released", steps=2, batch=5, resolution=64)
    shrunk, report = train(wrapped(backend, predict), enhanced, [photo], config)
    assert sizes[:4] == [5, 5, 3, 2] and report.micro_batch == 2 and report.checkpointing
    expected, _ = train(backend, enhanced, [photo], TrainConfig(recipe="released", steps=2, batch=5, resolution=64, micro_batch=2))
    for name, tensor in named_tensors(expected).items():
        torch.testing.assert_close(named_tensors(shrunk)[name], tensor, rtol=1e-3, atol=1e-5)


def test_when_one_picture_does_not_fit_the_error_says_what_to_lower(backend, enhance, photo):
    def predict(*args):
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(TrainingError, match="64 px.*[Ll]ower resolution"):
        train(wrapped(backend, predict), enhance(backend), [photo], TrainConfig(recipe="released", **SHORT))
    train(backend, enhance(backend), [photo], TrainConfig(**SHORT))  # and the models still work


def test_the_failed_attempt_is_forgotten_before_memory_is_given_back(backend, enhance, photo):
    """Otherwise the retry starts with all the activations of the first still in memory."""
    held, alive = [], []

    def predict(latents, *rest):
        if len(latents) > 1:
            activations = torch.zeros(8)
            held.append(weakref.ref(activations))
            raise torch.OutOfMemoryError("no memory")
        return backend.predict(latents, *rest)

    limited = wrapped(backend, predict)
    limited.release_memory = lambda: alive.append(any(reference() is not None for reference in held))
    train(limited, enhance(backend), [photo], TrainConfig(recipe="released", **SHORT))
    assert held and not any(alive)


def test_when_the_optimizer_does_not_fit_the_error_says_what_to_choose(backend, enhance, photo, monkeypatch):
    def step(self):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(TrainingError, match="recipe paper.*Choose the recipe fast"):
        train(backend, enhance(backend), [photo], TrainConfig(recipe="paper", **SHORT))


def test_a_bad_step_is_skipped_and_counted(backend, enhance, photo):
    calls = []

    def predict(*args):
        calls.append(1)
        good = backend.predict(*args)
        return Prediction(good.output * math.nan, good.target, good.denoised, good.snr, good.velocity) if len(calls) == 2 else good

    identity, report = train(wrapped(backend, predict), enhance(backend), [photo], TrainConfig(recipe="released", **SHORT))
    assert report.skipped == 1 and sum(not math.isfinite(x) for x in report.losses) == 1
    assert all(torch.isfinite(t).all() for t in named_tensors(identity).values())
    assert identity.metadata.config["losses"][1] is None


def test_three_bad_steps_stop_with_the_last_good_state(backend, enhance, photo, tmp_path):
    calls = []

    def predict(*args):
        calls.append(1)
        good = backend.predict(*args)
        return Prediction(good.output * math.inf, good.target, good.denoised, good.snr, good.velocity) if len(calls) > 2 else good

    checkpoint = Checkpoint(tmp_path / "run.partial")
    enhanced, config = enhance(backend), TrainConfig(recipe="released", steps=8, batch=2, resolution=64)
    with pytest.raises(TrainingError, match="not finite 3 times.*Lower lr"):
        train(wrapped(backend, predict), enhanced, [photo], config, checkpoint=checkpoint)
    resumed, report = train(backend, enhanced, [photo], config, checkpoint=checkpoint)
    assert report.resumed_at == 2
    same(resumed, train(backend, enhanced, [photo], config)[0])


def test_the_loss_scale_of_half_precision_networks_changes_nothing_but_the_range(backend, enhance, photo):
    plain, _ = train(backend, enhance(backend), [photo], TrainConfig(**SHORT))
    scaled = wrapped(backend, backend.predict)
    scaled.needs_loss_scaling = True
    found, _ = train(scaled, enhance(backend), [photo], TrainConfig(**SHORT))
    for name, tensor in named_tensors(plain).items():
        torch.testing.assert_close(named_tensors(found)[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("trigger", ["", "two words", "photo"])
def test_a_bad_trigger_is_refused_before_any_work(backend, enhance, photo, trigger, monkeypatch):
    monkeypatch.setattr(backend, "encode_images", lambda images: pytest.fail("work was done"))
    with pytest.raises(TriggerError):
        train(backend, enhance(backend), [photo], TrainConfig(trigger=trigger, **SHORT))


@pytest.mark.parametrize(
    "picture, says",
    [(torch.rand(1, 1, 3), "1×1 pixels"), (torch.full((64, 64, 3), math.nan), "not finite"), (torch.rand(64, 64, 2), "shape")],
)
def test_a_bad_photograph_is_refused_with_a_sentence(backend, enhance, picture, says):
    with pytest.raises(BadImageError, match=says):
        train(backend, enhance(backend), [picture], TrainConfig(**SHORT))


def test_a_resolution_off_the_grid_is_refused(backend, enhance, photo):
    with pytest.raises(BadImageError, match="multiple of 8"):
        train(backend, enhance(backend), [photo], TrainConfig(steps=1, batch=1, resolution=100))


def test_recipes_do_what_their_names_say():
    assert set(RELEASED.trains) == {"tokens", "adapter", "gate"} and RELEASED.steps == 320 and RELEASED.lr * RELEASED.batch == pytest.approx(0.012)
    assert set(PAPER.trains) >= {"tokens", "enhancer", "adapter", "gate", "global_key_value"}
    assert FAST.steps < BALANCED.steps < BEST.steps < RELEASED.steps
    assert set(BALANCED.trains) == {"tokens", "ending", "key_value"} and TrainConfig().resolved() == BALANCED


def test_templates_hold_the_placeholder_once():
    assert len(prompt_templates()) >= 10 and all(t.count("{tokens}") == 1 for t in prompt_templates())


def test_batches_depend_on_seed_and_step_only():
    first, again, other = (draw_batch(1, s, 4, 2, 9, (4, 8, 8), 1000) for s in (3, 3, 4))
    assert torch.equal(first.noise, again.noise) and torch.equal(first.timesteps, again.timesteps)
    assert not torch.equal(first.noise, other.noise)
    assert len(set(draw_batch(1, 3, 8, 2, 9, (4, 8, 8), 1000, distinct=1).prompts.tolist())) == 1


def test_timesteps_that_are_spread_have_a_slice_each_inside_their_span():
    found = torch.stack([draw_batch(0, step, 4, 2, 9, (1, 1, 1), 1000, span=(0.2, 0.6)).timesteps for step in range(300)])
    for number in range(4):
        low, high = 200 + 100 * number, 300 + 100 * number
        column = found[:, number]
        assert low <= column.min() < low + 5 and high - 5 < column.max() < high
    assert draw_batch(0, 0, 1, 2, 9, (1, 1, 1), 1000, span=(0.0, 1.0)).timesteps.max() < 1000
