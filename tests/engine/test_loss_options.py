"""The options of the loss: face masks, timestep weights, the prior, the names' covariance, free keys and values."""
from dataclasses import dataclass, replace

import pytest
import torch

from idea_engine.errors import BadImageError, TrainingError
from idea_engine.identity.anchor import with_spread
from idea_engine.methods import build as build_any
from idea_engine.methods.anchor_distance import ZETA, AnchorDistance
from idea_engine.methods.id_ea import BALANCED, PAPER, build
from idea_engine.methods.sefi_ide import SEFI
from idea_engine.training.batch import draw_batch
from idea_engine.training.config import TrainConfig, prompt_templates
from idea_engine.training.expressions import EXPRESSIONS, read_expressions
from idea_engine.training.loop import _Run, train
from idea_engine.training.losses import face_weights, min_snr_weights, noise_loss
from idea_engine.training.pictures import prepare_masks, prepare_photos
from idea_engine.training.prior import Prior
from recipes import CONDITIONED


@dataclass(frozen=True)
class Config(TrainConfig):
    """A training whose recipe is given whole."""

    given: object = CONDITIONED

    def resolved(self):
        return self.given


def run_of(backend, enhanced, photo, recipe, masks=None):
    config = Config(given=replace(recipe, steps=4, batch=2), resolution=64)
    faces = None if masks is None else prepare_masks(masks, [photo], 64)
    return _Run(backend, enhanced, config.resolved(), config, prepare_photos([photo], 64), build, faces)


def batch_of(run, seed=0):
    return draw_batch(seed, 0, 2, len(run.latents), len(run.config.templates), run.latents.shape[1:], run.backend.timesteps)


def test_face_masks_are_cropped_like_their_photographs(photo):
    mask = torch.zeros(photo.shape[:2])
    mask[20:52, :32] = 1.0  # the photograph is 72 high and 64 wide: the square around the face is its rows 4 to 67
    expected = torch.zeros(8, 8)
    expected[2:6, :4] = 1.0
    assert torch.allclose(prepare_masks([mask], [photo], 64)[0], expected, atol=0.05)


def test_with_the_whole_share_only_the_face_counts_and_the_mirror_image_has_its_own_mask(backend, enhance, photo):
    mask = torch.zeros(photo.shape[:2])
    mask[:, :32] = 1.0
    run = run_of(backend, enhance(backend), photo, replace(CONDITIONED, face_share=1.0), [mask])
    assert torch.equal(run.faces[1], run.faces[0].flip(1))
    output, target = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    losses = noise_loss(output, target, face_weights(run.faces, 1.0))
    halves = torch.stack([(output - target)[0, :, :, :4].square().mean(), (output - target)[1, :, :, 4:].square().mean()])
    assert torch.allclose(losses, halves, rtol=0.1)
    output[0, :, :, 5:] += 10.0  # beyond the seam, which resizing softens
    assert torch.allclose(noise_loss(output, target, face_weights(run.faces, 1.0))[0], losses[0], rtol=1e-3)


def test_without_a_share_or_without_a_face_all_cells_count_alike():
    masks = torch.stack([torch.rand(8, 8), torch.zeros(8, 8)])
    assert torch.equal(face_weights(masks, 0.0), torch.ones(2, 8, 8))
    assert torch.equal(face_weights(masks, 0.7)[1], torch.ones(8, 8))
    assert torch.allclose(face_weights(masks, 0.7).mean((1, 2)), torch.ones(2))


def test_masks_that_do_not_belong_to_the_photographs_are_refused(backend, enhance, photo):
    with pytest.raises(BadImageError, match="2 face masks for 1 photographs"):
        prepare_masks([torch.zeros(72, 64)] * 2, [photo], 64)
    with pytest.raises(BadImageError, match="10×20 pixels, its photograph 64×72"):
        prepare_masks([torch.zeros(20, 10)], [photo], 64)
    with pytest.raises(BadImageError, match="1 face masks for 2 photographs.*in their order.*on_missing is skip"):
        prepare_masks([torch.zeros(72, 64)], [photo, photo], 64)
    with pytest.raises(TrainingError, match="shall use face masks, but none are connected"):
        train(backend, enhance(backend), [photo], Config(given=replace(BALANCED, steps=1), resolution=64, attention="mask"))


@pytest.mark.parametrize("turned", (False, True), ids=("tall", "wide"))
def test_what_is_learned_from_is_the_square_around_the_face(turned):
    """Of a picture of 160 by 64 pixels, with the face wherever it is."""
    tall = torch.rand(160, 64, 3, generator=torch.Generator().manual_seed(5))
    photo, across = (tall.transpose(0, 1), 1) if turned else (tall, 0)
    for face, start in ((slice(0, 20), 0), (slice(60, 80), 38), (slice(150, 160), 96)):
        mask = torch.zeros(160, 64)
        mask[face, 16:48] = 1.0
        mask = mask.T if turned else mask
        inside = photo.narrow(across, start, 64), mask.narrow(across, start, 64)
        assert torch.equal(prepare_photos([photo], 64, [mask]), prepare_photos([inside[0]], 64))
        assert torch.equal(prepare_masks([mask], [photo], 64), prepare_masks([inside[1]], [inside[0]], 64))
        assert prepare_masks([mask], [photo], 64).sum() > 0
    middle = photo.narrow(across, 48, 64)
    assert torch.equal(prepare_photos([photo], 64), prepare_photos([middle], 64))
    with pytest.raises(BadImageError, match="Face mask 1 is empty"):
        prepare_masks([torch.zeros(photo.shape[:2])], [photo], 64)


def test_without_masks_the_whole_picture_counts_and_a_warning_says_so(backend, enhance, photo, caplog):
    short = dict(steps=2, batch=2)
    without, _ = train(backend, enhance(backend), [photo], Config(given=replace(BALANCED, **short), resolution=64))
    assert "no face masks" in caplog.text
    plain, _ = train(backend, enhance(backend), [photo], Config(given=replace(BALANCED.without_masks(), **short), resolution=64))
    masked, _ = train(backend, enhance(backend), [photo], Config(given=replace(BALANCED, **short), resolution=64), masks=[torch.ones(72, 64)])
    assert torch.equal(without.tokens["clip_l"], plain.tokens["clip_l"])
    assert not torch.equal(without.tokens["clip_l"], masked.tokens["clip_l"])


def test_weighted_errors_are_the_pictures_errors_in_both_parametrizations(any_backend, enhance, photo):
    run = run_of(any_backend, enhance(any_backend), photo, CONDITIONED)
    batch = batch_of(run)
    with torch.no_grad():
        condition = run.module.condition(any_backend, [run.prompts[i] for i in batch.prompts], [0, 1])
        edit = run.module.edit(torch.tensor([run.prompts[i].positions for i in batch.prompts]))
        clean = run.latents[batch.pictures]
        prediction = any_backend.predict(clean, batch.noise, batch.timesteps, condition, edit)
    weighted = noise_loss(prediction.output, prediction.target) * min_snr_weights(prediction.snr, prediction.velocity, 5.0)
    of_picture = (prediction.denoised - clean).square().flatten(1).mean(1) * prediction.snr.clamp(max=5.0)
    assert torch.allclose(weighted, of_picture, rtol=1e-3)


def test_the_prior_is_nothing_at_the_start_and_pulls_global_weights_back(backend, enhance, photo):
    run = run_of(backend, enhance(backend), photo, PAPER)
    prior, batch = Prior(backend, prompt_templates()), batch_of(run)
    arguments = (run.module, 0, run.latents[batch.pictures], batch.noise, batch.timesteps)
    with backend.training():
        assert prior(*arguments) == 0.0
        torch.manual_seed(0)
        with torch.no_grad():
            for change in run.module.global_value:
                change.normal_(std=0.05)
        before = prior(*arguments)
        before.backward()
        with torch.no_grad():
            for change in run.module.global_value:
                change -= 1e-2 * change.grad / max(change.grad.norm(), 1e-12)
        assert 0.0 < prior(*arguments) < before


def test_own_positions_cannot_move_a_prompt_without_them(backend, enhance, photo):
    run = run_of(backend, enhance(backend), photo, CONDITIONED)
    with torch.no_grad():
        run.module.key_value.up_value.fill_(1.0)
    batch = batch_of(run)
    with backend.training():
        assert Prior(backend, prompt_templates())(run.module, 0, run.latents[batch.pictures], batch.noise, batch.timesteps) == 0.0


def test_the_spread_is_the_covariance_of_each_name_encoded_alone(backend, enhance):
    names = ("brad pitt", "ann lee", "tom hanks", "emma stone", "bo")
    anchor = with_spread(enhance(backend).anchor, backend, names, batch=2)
    samples = []
    for name in names:
        ids = backend.word_ids(name)[:2]
        if len(ids) < 2:
            continue
        encoder, end = backend.encoders["clip_l"], backend.tokenizers["clip_l"].eos_token_id
        row = torch.tensor([[backend.tokenizers["clip_l"].bos_token_id, *ids, end]])
        samples.append(encoder(row).last_hidden_state[0, 1:3].detach())
    rows = torch.stack(samples)
    centred = (rows - rows.mean(0)).flatten(0, 1)
    covariance = centred.T @ centred / (len(centred) - 2)
    spread = anchor.spread["clip_l"]
    assert torch.allclose(spread.T @ spread, covariance, atol=1e-5 * float(covariance.abs().max()) + 1e-6)
    tokens = anchor.rows["clip_l"] + torch.randn_like(anchor.rows["clip_l"])
    delta = (tokens - anchor.rows["clip_l"]).double()
    dense = covariance.double() + ZETA * torch.eye(covariance.shape[0], dtype=torch.double)
    expected = (delta @ torch.linalg.inv(dense) * delta).sum(1).sqrt().mean()
    found = AnchorDistance(anchor.rows["clip_l"], spread=spread)(tokens)
    assert torch.allclose(found.double(), expected, rtol=1e-3)


@pytest.mark.parametrize("changes", [
    dict(key_value_rank=0), dict(face_share=0.6), dict(snr_ceiling=5.0), dict(covariance="names", anchor_weight=0.01),
], ids=lambda changes: next(iter(changes)))
def test_gradients_agree_with_finite_differences(backend, enhance, photo, changes):
    enhanced = enhance(backend)
    enhanced = replace(enhanced, anchor=with_spread(enhanced.anchor, backend, ("brad pitt", "ann lee", "tom hanks", "emma stone")))
    mask = torch.zeros(photo.shape[:2])
    mask[20:50, 10:50] = 1.0
    run = run_of(backend, enhanced, photo, replace(CONDITIONED, **changes), [mask])
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in [*run.module.key_value.offsets(), *run.module.tokens.values()]:
            parameter.add_(torch.randn_like(parameter) * 0.05)
    batch = batch_of(run)
    parameters = [run.module.key_value.offsets()[-1], *run.module.tokens.values()]

    def loss():
        return run.picture_losses(batch, slice(0, 2)).mean() + run.module.regularizer()

    with backend.training():
        loss().backward()
        for parameter in parameters:
            direction, slope = parameter.grad / parameter.grad.norm(), float(parameter.grad.norm())
            size = 2e-3 * float(parameter.detach().norm()) + 1e-3
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter.add_(direction, alpha=sign * size)
                    values.append(float(loss()))
                    parameter.add_(direction, alpha=-sign * size)
            assert abs((values[0] - values[1]) / (2 * size) - slope) <= 0.02 * slope + 3e-7 / size


def test_without_an_anchor_the_distance_is_not_computed_and_cannot_poison_the_loss(backend, enhance):
    for recipe in (BALANCED, SEFI):
        module = build_any(enhance(backend), recipe, backend.block_widths)
        with torch.no_grad():
            for rows in module.tokens.values():
                rows.fill_(1e30)  # its square is infinite
        assert float(module.regularizer()) == 0.0


def test_free_keys_and_values_do_not_run_the_enhancer(backend, enhance):
    module = build(enhance(backend), BALANCED, backend.block_widths)
    calls = []
    module.enhancer.register_forward_pre_hook(lambda *given: calls.append(given))
    edit = module.edit(torch.zeros(1, 2, dtype=torch.long))
    assert torch.equal(edit.key_offsets, *module.key_value.own_keys) and torch.equal(edit.value_offsets, *module.key_value.own_values)
    assert module.identity("<anna>", {}, "").key_offsets.keys() == set(range(len(backend.block_widths)))
    assert not calls


def test_each_photograph_is_trained_with_its_own_caption_mirrored_or_not(backend, enhance, photo):
    config = Config(given=replace(CONDITIONED, steps=4, batch=4, prompts_per_step=0), resolution=64, captions=("on a beach", "in a forest"))
    run = _Run(backend, enhance(backend), config.resolved(), config, prepare_photos([photo, 1 - photo], 64), build)
    expected = [backend.word_ids("beach")[0], backend.word_ids("forest")[0]]
    seen, original = [], run.module.condition
    run.module.condition = lambda backend, prompts, rows: seen.append([prompts[row] for row in rows]) or original(backend, prompts, rows)
    pictures = torch.tensor([0, 1, 2, 3])  # the two photographs, then their mirror images
    batch = replace(draw_batch(0, 0, 4, 4, len(config.templates), run.latents.shape[1:], 1000), pictures=pictures)
    with torch.no_grad():
        run.picture_losses(batch, slice(0, 4))
    for picture, prompt in zip(pictures.tolist(), seen[0]):
        words = prompt.ids["clip_l"].tolist()
        assert expected[picture % 2] in words and expected[1 - picture % 2] not in words


def test_another_number_of_captions_than_photographs_is_refused(backend, enhance, photo):
    with pytest.raises(TrainingError, match="2 captions for 1 photographs"):
        train(backend, enhance(backend), [photo], Config(given=replace(CONDITIONED, steps=1, batch=1), resolution=64, captions=("a", "b")))


def test_read_expressions_become_captions_unless_the_artist_says_what_the_photographs_show(backend, enhance, photo):
    def captions_of(**chosen):
        config = Config(given=replace(CONDITIONED, steps=1, batch=1, reads_expressions=True), resolution=64, **chosen)
        identity, _ = train(backend, enhance(backend), [photo, 1 - photo], config)
        return identity.metadata.config["captions"]

    read = captions_of()
    assert len(read) == 2 and set(read) <= set(EXPRESSIONS)
    assert captions_of() == read
    assert list(captions_of(captions=("in a forest",))) == ["in a forest"]


def test_the_expression_is_the_one_under_which_the_noise_is_found_best(backend, enhance, photo):
    """Against a plain computation, one text at a time."""
    run = run_of(backend, enhance(backend), photo, CONDITIONED)
    found = read_expressions(backend, run.latents[:1], None, seed=5)
    noise = torch.randn(4, *run.latents.shape[1:], generator=torch.Generator().manual_seed(5))
    timesteps = torch.tensor([int(level * 999) for level in (0.35, 0.5, 0.65, 0.8)])
    errors = []
    for words in EXPRESSIONS:
        prompt = backend.tokenize(f"a photo of a person {words}", "", 0)
        with torch.no_grad():
            context = backend.encoders["clip_l"](prompt.ids["clip_l"][None]).last_hidden_state.expand(4, -1, -1)
            alpha = backend.alphas[timesteps].view(-1, 1, 1, 1)
            noisy = alpha.sqrt() * run.latents[:1] + (1 - alpha).sqrt() * noise
            errors.append(float((backend.unet(noisy, timesteps, context).sample - noise).square().mean()))
    assert found == [EXPRESSIONS[errors.index(min(errors))]]


def test_the_prior_adds_its_gradient_with_and_without_checkpointing(backend, enhance, photo):
    def gradient(weight, checkpointing):
        run = run_of(backend, enhance(backend), photo, replace(PAPER, prior_weight=weight))
        torch.manual_seed(0)
        with torch.no_grad():
            for change in run.module.global_value:
                change.normal_(std=0.05)
        with backend.training(checkpointing):
            run._backward()
        return torch.cat([change.grad.flatten() for change in run.module.global_value])

    plain, both = gradient(0.0, False), gradient(1.0, False)
    assert not torch.allclose(plain, both)
    torch.testing.assert_close(gradient(1.0, True), both, rtol=1e-4, atol=1e-7)
