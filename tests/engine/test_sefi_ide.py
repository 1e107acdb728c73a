"""SeFi-IDE: what a stage's tokens change, and what they leave alone."""
from dataclasses import replace

import pytest
import torch

from idea_engine.backends.templates import tokenize_template
from idea_engine.errors import TrainingError
from idea_engine.methods import RECIPES, build
from idea_engine.methods.anchor_distance import AnchorDistance
from idea_engine.methods.id_ea import IDEA
from idea_engine.methods.sefi_ide import SEFI, with_attention, with_stages
from idea_engine.training.checkpoint import Checkpoint
from idea_engine.training.loop import TrainConfig, train

TEMPLATES = ("a photo of a face of {tokens} person", "a sketch of {tokens}")
TIMESTEPS = torch.tensor([10, 250, 450, 650, 999])  # one in each of five stages


@pytest.fixture
def prompts(any_backend):
    return [tokenize_template(any_backend, template, 2) for template in TEMPLATES]


def noisy(backend, count, seed=1):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(count, 4, 8, 8, generator=g), torch.randn(count, 4, 8, 8, generator=g)


@torch.no_grad()
def answer(backend, module, prompts, rows, timesteps):
    latents, noise = noisy(backend, len(rows))
    condition, edit = module.read(backend, prompts, rows, timesteps)
    return backend.predict(latents, noise, timesteps, condition, edit).output


def made(backend, enhance, recipe=SEFI):
    return build(enhance(backend), recipe, backend.block_widths)


def test_every_vector_starts_at_the_anchor(any_backend, enhance):
    module = made(any_backend, enhance)
    identity = module.identity("<anna>", {}, "")
    assert len(identity.stages) == 5 and identity.adapter is None
    for stage in identity.stages:
        for tokens in (stage.key, stage.value, identity.tokens):
            assert all(torch.equal(rows, identity.anchor[key]) for key, rows in tokens.items())


def test_every_stage_is_held_to_the_anchor(backend, enhance):
    """The loss is the mean distance of what is saved, and pulls on every stage, on keys and on values."""
    recipe = with_stages(RECIPES["released"], 3)
    module = made(backend, enhance, recipe)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for rows in (*module.tokens.values(), *module.offsets.values()):
            rows.add_(torch.randn(rows.shape, generator=generator))
    loss = module.regularizer()
    identity = module.identity("<anna>", {}, "")
    distances = [
        AnchorDistance(identity.anchor[key])(rows) for stage in identity.stages for tokens in (stage.key, stage.value) for key, rows in tokens.items()
    ]
    assert float(loss.detach()) == pytest.approx(recipe.anchor_weight * float(torch.stack(distances).mean()), rel=1e-2)
    loss.backward()
    assert all((offsets.grad.flatten(0, 2).norm(dim=1) > 0).all() for offsets in module.offsets.values())


def test_one_stage_with_equal_keys_and_values_is_a_plain_identity(any_backend, enhance, prompts):
    recipe = replace(SEFI, stages=1)
    staged = made(any_backend, enhance, recipe)
    plain = IDEA(enhance(any_backend), replace(recipe, stages=0, trains=("tokens",)), any_backend.block_widths)
    with torch.no_grad():
        for key, rows in staged.offsets.items():
            rows.add_(torch.randn(rows.shape[2:], generator=torch.Generator().manual_seed(2)))
            plain.tokens[key].add_(rows[0, 0])
    outputs = [answer(any_backend, module, prompts, [0, 1, 0], torch.tensor([10, 500, 999])) for module in (staged, plain)]
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)
    identity = staged.identity("<anna>", {}, "")
    for key, rows in identity.tokens.items():
        torch.testing.assert_close(identity.stages[0].key[key], rows)


@pytest.mark.parametrize("stage", range(5))
def test_a_stages_tokens_act_at_its_timesteps_only(any_backend, enhance, prompts, stage):
    module = made(any_backend, enhance)
    rows = [0, 1, 0, 1, 0]
    before = answer(any_backend, module, prompts, rows, TIMESTEPS)
    with torch.no_grad():  # the mean, which the rest of the prompt reads, stays
        for offsets in module.offsets.values():
            change = torch.randn(offsets.shape[2:], generator=torch.Generator().manual_seed(3))
            offsets[stage, 0] += change
            offsets[stage, 1] -= change
    after = answer(any_backend, module, prompts, rows, TIMESTEPS)
    changed = (after - before).abs().flatten(1).amax(1) > 1e-4
    assert changed.tolist() == [number == stage for number in range(5)]


@pytest.mark.parametrize("kind", ("key", "value"))
def test_keys_and_values_read_tokens_of_their_own(any_backend, enhance, prompts, kind):
    """Against encodings made one by one: only the identity's positions, and only of the keys or of the values, come from its stage."""
    module = made(any_backend, enhance)
    torch.manual_seed(0)
    with torch.no_grad():
        for offsets in module.offsets.values():
            offsets.normal_()
        condition, edit = module.read(any_backend, prompts, [1, 0], torch.tensor([700, 100]))
        contexts = dict(zip(("key", "value"), edit.contexts(0, condition.context)))
        for row, (prompt, stage) in enumerate(((prompts[1], 3), (prompts[0], 0))):
            plain = module.encode(any_backend, [prompt], module.single()).context[0]
            own = module.encode(any_backend, [prompt], {k: v[stage, int(kind == "value")] for k, v in module.staged().items()}).context[0]
            places = list(prompt.positions)
            others = [i for i in range(len(plain)) if i not in places]
            torch.testing.assert_close(contexts[kind][row, places], own[places], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(contexts[kind][row, others], plain[others], rtol=1e-5, atol=1e-5)


def test_a_mixed_batch_is_read_as_each_picture_alone(any_backend, enhance, prompts):
    module = made(any_backend, enhance, with_stages(RECIPES["fast"], 5))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in [*module.offsets.values(), *module.key_value.offsets()]:
            parameter.normal_(std=0.3)
        module.adapter.gamma.fill_(0.5)
        rows = [1, 0, 0, 1, 1]
        condition, edit = module.read(any_backend, prompts, rows, TIMESTEPS)
        for i, row in enumerate(rows):
            alone, own = module.read(any_backend, [prompts[row]], [0], TIMESTEPS[i : i + 1])
            torch.testing.assert_close(condition.context[i], alone.context[0], rtol=1e-5, atol=1e-5)
            for together, single in zip(edit.contexts(2, condition.context), own.contexts(2, alone.context)):
                torch.testing.assert_close(together[i], single[0], rtol=1e-5, atol=1e-5)


def test_the_plain_tokens_are_the_nearest_single_vectors(backend, enhance):
    module = made(backend, enhance)
    torch.manual_seed(0)
    with torch.no_grad():
        for offsets in module.offsets.values():
            offsets.normal_()
    identity = module.identity("<anna>", {}, "")
    every = torch.stack([tokens["clip_l"] for stage in identity.stages for tokens in (stage.key, stage.value)])
    distance = lambda rows: float((every - rows).square().sum())  # noqa: E731
    best = distance(identity.tokens["clip_l"])
    assert all(best < distance(rows) for rows in every)
    assert all(best < distance(identity.tokens["clip_l"] + 0.1 * torch.randn_like(every[0])) for _ in range(10))


def test_the_plain_tokens_alone_give_a_likeness(backend, enhance, photo):
    """What ``embedding:anna`` reads explains the photograph far better than the average person does."""
    from idea_engine.training.losses import noise_loss
    from idea_engine.training.pictures import prepare_photos

    enhanced = enhance(backend)
    identity, _ = train(backend, enhanced, [photo], TrainConfig(recipe="sefi", attention="off", steps=60, batch=4, resolution=64, templates=TEMPLATES[:1]))
    latents = backend.encode_images(prepare_photos([photo], 64)).expand(20, -1, -1, -1)
    noise = torch.randn(20, 4, 8, 8, generator=torch.Generator().manual_seed(9))
    timesteps = torch.linspace(0, 999, 20).long()
    prompt = tokenize_template(backend, TEMPLATES[0], 2)

    @torch.no_grad()
    def loss(module, tokens):
        for key, rows in tokens.items():
            module.tokens[key].copy_(rows)
        condition, edit = module.read(backend, [prompt], [0] * 20, timesteps)
        prediction = backend.predict(latents, noise, timesteps, condition, edit)
        return float(noise_loss(prediction.output, prediction.target).mean())

    plain = IDEA(enhanced, replace(SEFI, stages=0, trains=("tokens",)), backend.block_widths)
    start, single = loss(plain, identity.anchor), loss(plain, identity.tokens)
    staged = made(backend, enhance)
    with torch.no_grad():
        for key, offsets in staged.offsets.items():
            offsets.copy_(torch.stack([torch.stack([s.key[key], s.value[key]]) for s in identity.stages]))
            staged.tokens[key].zero_()
    whole = loss(staged, {key: torch.zeros_like(rows) for key, rows in identity.tokens.items()})
    assert start - single > 0.5 * (start - whole) > 0


def test_it_needs_no_face_and_other_recipes_say_what_they_need(backend, enhance, photo):
    faceless = replace(enhance(backend), face=None)
    identity, _ = train(backend, faceless, [photo], TrainConfig(recipe="sefi", steps=2, batch=2, resolution=64))
    assert identity.face is None and len(identity.stages) == 5
    with pytest.raises(TrainingError, match="recipe paper starts from a face.*recipe sefi"):
        train(backend, faceless, [photo], TrainConfig(recipe="paper", steps=2, batch=2, resolution=64))


@pytest.mark.parametrize("recipe", RECIPES)
def test_both_ideas_are_options_of_every_recipe_each_alone(recipe):
    original = RECIPES[recipe]
    assert with_stages(original, 0) is original and with_attention(original, "") is original
    staged = TrainConfig(recipe=recipe, stages=3).resolved()
    assert (staged.stages, "stages" in staged.trains, staged.attention_weight) == (3, True, original.attention_weight)
    looking = TrainConfig(recipe=recipe, attention="mask").resolved()
    assert looking.attention_weight > 0 and looking.attention_target == "mask" and looking.stages == original.stages
    assert TrainConfig(recipe=recipe, attention="off").resolved().attention_weight == 0


def test_a_cancelled_training_in_stages_resumes_to_the_very_same_identity(backend, enhance, photo, tmp_path):
    from idea_engine.identity.operations import content_hash

    config = TrainConfig(recipe="fast", stages=2, attention="face_word", steps=5, batch=2, resolution=64)
    whole, _ = train(backend, enhance(backend), [photo], config)
    checkpoint = Checkpoint(tmp_path / "run.partial")

    class Cancelled(Exception):
        pass

    def cancel(event):
        if event.step == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        train(backend, enhance(backend), [photo], config, on_step=cancel, checkpoint=checkpoint)
    resumed, report = train(backend, enhance(backend), [photo], config, checkpoint=checkpoint)
    assert report.resumed_at == 3 and content_hash(resumed) == content_hash(whole)
