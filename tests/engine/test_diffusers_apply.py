"""Identities in real diffusers pipelines of all families: exact where they must not act, as trained where they must."""
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from idea_engine.applying.applied import AppliedIdentity
from idea_engine.applying.diffusers import applied
from idea_engine.backends.diffusers import DiffusersBackend
from idea_engine.errors import FamilyMismatchError, TriggerError, UnsupportedModelError
from idea_engine.methods import RECIPES, build
from idea_engine.training.loop import TrainConfig, _Run
from idea_engine.training.pictures import prepare_photos
from tiny_identities import random_identity
from tiny_pipelines import FAMILIES, tiny_pipeline

PROMPT = "a photo of <anna> person, by the sea"


@pytest.fixture(scope="module")
def pipes(tmp_path_factory):
    """family → its pipeline, made once and never changed."""
    made = {}

    def get(family="sd1"):
        if family not in made:
            made[family] = tiny_pipeline(family, tmp_path_factory.mktemp(family))
            made[family].set_progress_bar_config(disable=True)
        return made[family]

    return get


def draw(pipe, prompt=PROMPT, seed=1, **more):
    """(P, 4, 8, 8) latents after three steps."""
    settings = dict(num_inference_steps=3, guidance_scale=4.0, height=64, width=64, output_type="latent", negative_prompt="ugly")
    if isinstance(prompt, list):
        settings["negative_prompt"] = ["ugly"] * len(prompt)
    generators = [torch.Generator().manual_seed(seed) for _ in range(len(prompt) if isinstance(prompt, list) else 1)]
    return pipe(prompt, generator=generators, **{**settings, **more}).images


def noise_of(pipe, prompt=PROMPT, timestep=500, **more):
    """(1, 4, 8, 8): what the UNet answers for one prompt."""
    encoded = pipe.encode_prompt(prompt, device=pipe.device, num_images_per_prompt=1, do_classifier_free_guidance=False, **more)
    sizes = None
    if len(encoded) == 4:
        sizes = {"text_embeds": encoded[2], "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]])}
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return pipe.unet(latents, torch.tensor(timestep), encoder_hidden_states=encoded[0], added_cond_kwargs=sizes, return_dict=False)[0]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_outside_nothing_remains_and_inside_only_prompts_with_the_trigger_change(pipes, family, recipe):
    pipe = pipes(family)
    person = random_identity(DiffusersBackend(pipe), recipe=recipe)
    before, plain = draw(pipe), draw(pipe, "a cat")
    attributes, weights = set(vars(pipe)), {k: v.clone() for k, v in pipe.unet.state_dict().items()}
    with applied(pipe, [person]) as same:
        assert same is pipe
        inside, plain_inside = draw(pipe), draw(pipe, "a cat")
    assert torch.equal(draw(pipe), before) and not torch.equal(inside, before)
    assert torch.equal(plain_inside, plain) == (recipe != "paper")
    assert set(vars(pipe)) == attributes and all(torch.equal(weights[k], v) for k, v in pipe.unet.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in pipe.unet.modules())


def test_an_error_inside_the_block_leaves_the_pipeline_as_it_was(pipes):
    pipe = pipes()
    before = draw(pipe)
    with pytest.raises(KeyError), applied(pipe, [random_identity(DiffusersBackend(pipe))]):
        raise KeyError
    assert torch.equal(draw(pipe), before)


@pytest.mark.parametrize("timestep", (100, 400, 899))
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_trained_is_what_is_used(pipes, enhance, photo, family, recipe, timestep):
    pipe = pipes(family)
    backend = DiffusersBackend(pipe)
    config = TrainConfig(recipe=recipe, steps=2, batch=2, resolution=64, templates=(PROMPT.replace("<anna>", "{tokens}"),))
    chosen = replace(config.resolved().without_masks(), reads_expressions=False)  # the prompt is compared, so nothing is added to it
    run = _Run(backend, enhance(backend), chosen, config, prepare_photos([photo], 64), build)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        run.module.adapter.gamma.fill_(0.5)
        for parameter in [*run.module.endings.values(), *run.module.key_value.offsets(), *run.module.global_key, *run.module.global_value]:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
        for parameter in [*run.module.tokens.values(), *run.module.parts().get("stages", [])]:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
        latents, noise, time = run.latents[:1], torch.randn(run.latents[:1].shape, generator=generator), torch.tensor([timestep])
        trained = backend.predict(latents, noise, time, *run.module.read(backend, run.prompts, [0], time))
        alpha = backend.alphas[timestep]
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise

    def answer():
        encoded = pipe.encode_prompt(PROMPT, device=pipe.device, num_images_per_prompt=1, do_classifier_free_guidance=False)
        added = None if len(encoded) == 2 else {"text_embeds": encoded[2], "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]])}
        with torch.no_grad():
            return pipe.unet(noisy, time, encoder_hidden_states=encoded[0], added_cond_kwargs=added, return_dict=False)[0]

    with applied(pipe, [run.module.identity("<anna>", {}, "")]):
        used = answer()
    effect = (answer() - trained.output).abs().max()
    assert effect > 1e-3 and (used - trained.output).abs().max() <= 5e-3 * effect  # the file's float16, nothing else


@pytest.mark.parametrize("family", ("sd1", "sdxl"))
def test_two_people_keep_to_themselves(pipes, family):
    pipe = pipes(family)
    backend = DiffusersBackend(pipe)
    anna, ben = random_identity(backend, "<anna>", seed=1), random_identity(backend, "<ben>", seed=2)
    with applied(pipe, [anna]):
        alone = draw(pipe, "portrait of <anna>")
    with applied(pipe, [ben, anna]):
        beside, other = draw(pipe, "portrait of <anna>"), draw(pipe, "portrait of <ben>")
        together = draw(pipe, "<anna> and <ben> in a boat")
        both = draw(pipe, ["portrait of <anna>", "portrait of <ben>"])
    with applied(pipe, [anna, ben]):
        other_way = draw(pipe, "<anna> and <ben> in a boat")
    assert torch.equal(alone, beside) and not torch.equal(alone, other)
    torch.testing.assert_close(other_way, together, atol=1e-4, rtol=0)  # summed in another order, nothing else
    torch.testing.assert_close(both[:1], alone, atol=1e-3, rtol=0)  # the same noise, computed beside another picture


def test_strength_runs_from_the_plain_word_to_the_person(pipes):
    pipe = pipes()
    person = random_identity(DiffusersBackend(pipe))
    plain = noise_of(pipe)

    def at(strength):
        with applied(pipe, [AppliedIdentity(person, strength)]):
            return noise_of(pipe)

    assert torch.equal(at(0.0), plain)
    full = at(1.0)
    assert (at(0.9) - full).norm() < (at(0.4) - full).norm()


def test_outside_its_range_the_trigger_is_plain_text(pipes):
    pipe = pipes()
    backend = DiffusersBackend(pipe)
    anna, ben = random_identity(backend, seed=1), random_identity(backend, "<ben>", seed=2)
    text, plain = "<anna> beside <ben>", {time: noise_of(pipe, PROMPT, time) for time in (200, 500, 800)}
    with applied(pipe, [ben]):
        only_ben = noise_of(pipe, text, 200)
    with applied(pipe, [anna, ben]):
        both = noise_of(pipe, text, 800)
    with applied(pipe, [AppliedIdentity(anna, end=0.5), ben]):
        early, late = noise_of(pipe, text, 800), noise_of(pipe, text, 200)
    assert torch.equal(early, both) and torch.equal(late, only_ben)
    with applied(pipe, [AppliedIdentity(anna, start=0.5)]):
        assert torch.equal(noise_of(pipe, PROMPT, 800), plain[800]) and not torch.equal(noise_of(pipe, PROMPT, 200), plain[200])
    with applied(pipe, [AppliedIdentity(anna, start=0.7, end=0.2)]):
        assert torch.equal(noise_of(pipe), plain[500])


@pytest.mark.parametrize("family", ("sd1", "sdxl"))
def test_lists_several_pictures_and_negative_prompts(pipes, family):
    pipe = pipes(family)
    with applied(pipe, [random_identity(DiffusersBackend(pipe))]):
        def encode(prompt, count=1, negative=None):
            return pipe.encode_prompt(
                prompt, device=pipe.device, num_images_per_prompt=count, do_classifier_free_guidance=True, negative_prompt=negative
            )

        single = encode(PROMPT, negative="ugly")
        several = encode(["a cat", PROMPT], 2, ["a dog", "no <anna>"])
        assert len(several[0]) == len(several[1]) == 4
        for slot in range(0, len(several), 2):
            torch.testing.assert_close(several[slot][2], single[slot][0], atol=1e-4, rtol=1e-4)
            assert torch.equal(several[slot][2], several[slot][3])
        negative = encode("no <anna>")
        for slot in range(0, len(several), 2):
            torch.testing.assert_close(several[slot + 1][2], negative[slot][0], atol=1e-4, rtol=1e-4)
    mentioned = encode(["a cat", "a dog"], 2, ["a dog", "a dog"])
    for slot in range(0, len(several), 2):
        assert torch.equal(several[slot][:2], mentioned[slot][:2])


def test_sdxls_second_text_may_mention_the_person_alone(pipes):
    pipe = pipes("sdxl")
    plain = noise_of(pipe, "a cat", prompt_2="by <anna>")
    with applied(pipe, [random_identity(DiffusersBackend(pipe))]):
        assert not torch.equal(noise_of(pipe, "a cat", prompt_2="by <anna>"), plain)


def test_one_person_under_two_triggers_acts_once_at_each_place(pipes):
    pipe = pipes()
    person = random_identity(DiffusersBackend(pipe), recipe="released")
    with applied(pipe, [person]):
        once = noise_of(pipe, "<anna> meets <anna>")
    with applied(pipe, [person, person.with_trigger("<eva>")]):
        assert torch.equal(noise_of(pipe, "<anna> meets <eva>"), once)


@pytest.mark.parametrize("change, error, sentence", [
    (lambda one, other: [one, other.with_trigger("<anna>")], TriggerError, "Two identities answer to <anna>"),
    (lambda one, other: [replace(one, key_offsets={0: one.key_offsets[0]})], FamilyMismatchError, "another arrangement"),
    (lambda one, other: [replace(one, family=replace(one.family, name="sd2"))], FamilyMismatchError, "was made for Stable Diffusion 2.x"),
    (lambda one, other: [AppliedIdentity(one, mask=torch.ones(1, 8, 8))], UnsupportedModelError, "<anna> should act in a part of the picture"),
    (lambda one, other: [one.with_trigger("photo")], TriggerError, "already a token")])
def test_what_cannot_be_applied_is_said(pipes, change, error, sentence):
    pipe = pipes()
    backend = DiffusersBackend(pipe)
    with pytest.raises(error, match=sentence), applied(pipe, change(random_identity(backend), random_identity(backend, seed=1))):
        pass
    assert "encode_prompt" not in vars(pipe)


def test_what_cannot_be_understood_inside_is_said(pipes):
    pipe = pipes()
    person = random_identity(DiffusersBackend(pipe))
    with applied(pipe, [person]):
        with pytest.raises(TriggerError, match="after its 75th token.*shorten"):
            draw(pipe, "x " * 75 + "<anna>")
        with pytest.raises(TriggerError, match="leave clip_skip out"):
            draw(pipe, clip_skip=1)
        with pytest.raises(TriggerError, match="already.*one list"), applied(pipe, [person]):
            pass
        draw(pipe, "<anna> " + "x " * 90)  # only what comes after is cut off


class Reads(TorchDispatchMode):
    """Counts the values that Python reads out of tensors, each of which waits for the device."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*arguments, **(keywords or {}))


def test_the_timestep_is_read_only_where_something_depends_on_it(pipes):
    pipe = pipes()
    person = random_identity(DiffusersBackend(pipe))

    def reads(people):
        with applied(pipe, people), torch.no_grad():
            context = pipe.encode_prompt(PROMPT, device=pipe.device, num_images_per_prompt=1, do_classifier_free_guidance=False)[0]
            call = partial(pipe.unet, torch.zeros(1, 4, 8, 8), torch.tensor(500), encoder_hidden_states=context)
            call()  # finds out who is in the prompt
            with Reads() as counted:
                call()
        return counted.count

    assert reads([person]) == reads([])
    assert reads([AppliedIdentity(person, end=0.5)]) == reads([]) + 1


@pytest.mark.parametrize("family", ("sd1", "sdxl"))
def test_an_autoencoder_that_overflows_in_half_precision_computes_in_full(tmp_path, family):
    vae = (pipe := tiny_pipeline(family, tmp_path).to(torch.float16)).vae
    with torch.no_grad():
        vae.encoder.conv_in.weight.mul_(5e4), vae.decoder.conv_in.weight.mul_(5e4)  # what follows is normalised
    weights = {name: value.clone() for name, value in vae.state_dict().items()}
    backend = DiffusersBackend(pipe)
    photo = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))

    def both():
        latents = backend.encode_images(photo)
        return latents, backend.decode_latents(torch.ones_like(latents))

    seen = []
    for module in (vae.encoder, vae.decoder):
        module.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0].dtype))
    assert all(torch.isfinite(values).all() for values in both()) and seen == [torch.float32] * 2
    assert vae.dtype == torch.float16 and all(torch.equal(weights[name], value) for name, value in vae.state_dict().items())
    vae.register_to_config(force_upcast=False)
    assert not all(torch.isfinite(values).all() for values in both())  # else nothing was tested
