"""Attention maps: the right numbers, and no trace where none are asked for."""
from dataclasses import replace

import pytest
import torch

from idea_engine.backends.attention_maps import AttentionMaps, attention_columns, grid_size, inside, map_blocks
from idea_engine.backends.base import CrossAttentionEdit
from idea_engine.backends.templates import prompt_inputs, tokenize_template
from idea_engine.errors import TrainingError
from idea_engine.methods import RECIPES, build
from idea_engine.methods.sefi_ide import SEFI
from idea_engine.training.attention_loss import AttentionLoss, attention_inside
from idea_engine.training.loop import TrainConfig, train

TEXT = "a photo of a face of {tokens} person"


def test_columns_are_the_softmax_of_a_hand_computed_attention():
    g = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 12, 16, generator=g), torch.randn(2, 9, 16, generator=g)
    heads = [torch.softmax(query[..., h * 4 : h * 4 + 4] @ key[..., h * 4 : h * 4 + 4].transpose(1, 2) / 2, -1) for h in range(4)]
    expected = torch.stack(heads).mean(0)
    found = attention_columns(query, key, 4, torch.eye(9))  # more columns than a head is wide
    torch.testing.assert_close(found, expected)
    groups = torch.zeros(2, 9, 2)
    groups[0, [1, 4], 0] = 1
    groups[1, 2:, 1] = 1
    torch.testing.assert_close(attention_columns(query, key, 4, groups), expected @ groups)


@pytest.mark.parametrize("scales, blocks", [((1, 2, 4, 8, 4, 2, 1), (2, 3, 4)), ((2, 4, 4, 2), (1, 2)), ((1, 2, 2, 1), (1, 2)), ((1, 1), (0, 1))])
def test_maps_come_from_the_coarse_grids(scales, blocks):
    assert map_blocks(scales) == blocks


def condition_of(backend, prompts, tokens):
    return backend.encode_text(prompt_inputs(backend, prompts, tokens), [prompt.end for prompt in prompts])


@pytest.mark.parametrize("size", [(8, 8), (9, 7)])
@torch.no_grad()
def test_asking_for_maps_changes_no_bit_of_the_answer_and_they_sum_to_one(any_backend, enhance, size):
    prompt = tokenize_template(any_backend, TEXT, 2)
    condition = condition_of(any_backend, [prompt, prompt], enhance(any_backend).anchor.rows)
    latents, noise, steps = torch.randn(2, 4, *size), torch.randn(2, 4, *size), torch.tensor([3, 800])
    maps = AttentionMaps(torch.eye(77))
    asked = any_backend.predict(latents, noise, steps, condition, CrossAttentionEdit(maps=maps)).output
    plain = any_backend.predict(latents, noise, steps, condition, CrossAttentionEdit()).output
    assert torch.equal(asked, plain)
    assert tuple(sorted(maps.found)) == map_blocks(any_backend.block_scales)
    for block, grid in zip(map_blocks(any_backend.block_scales), maps.grids(size, any_backend.block_scales)):
        assert grid.shape == (2, 77, *grid_size(size, any_backend.block_scales[block]))
    whole = maps.picture(size, any_backend.block_scales)
    assert whole.shape == (2, 77, *size)
    torch.testing.assert_close(whole.sum(1), torch.ones(2, *size))
    own = AttentionMaps.of_positions(torch.tensor([prompt.positions] * 2), 77)
    any_backend.predict(latents, noise, steps, condition, CrossAttentionEdit(maps=own))
    torch.testing.assert_close(own.picture(size, any_backend.block_scales)[:, 0], whole[:, list(prompt.positions)].sum(1))


@torch.no_grad()
def test_maps_are_what_the_networks_own_attention_computes(backend, enhance):
    """diffusers' unfused attention, asked for its probabilities."""
    from diffusers.models.attention_processor import AttnProcessor

    prompt = tokenize_template(backend, TEXT, 2)
    condition = condition_of(backend, [prompt], enhance(backend).anchor.rows)
    arguments = (torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8), torch.tensor([400]), condition)
    maps = AttentionMaps(torch.eye(77))
    backend.predict(*arguments, CrossAttentionEdit(maps=maps))
    seen, before = {}, [block.processor for block in backend.blocks]
    try:
        for number in map_blocks(backend.block_scales):
            block = backend.blocks[number]
            block.set_processor(AttnProcessor())
            scores = type(block).get_attention_scores

            def watched(query, key, mask=None, number=number, block=block):
                seen[number] = scores(block, query, key, mask)
                return seen[number]

            block.get_attention_scores = watched
        backend.predict(*arguments, CrossAttentionEdit())
    finally:
        for block, processor in zip(backend.blocks, before):
            block.__dict__.pop("get_attention_scores", None)
            block.set_processor(processor)
    assert seen.keys() == maps.found.keys()
    for number, found in maps.found.items():
        torch.testing.assert_close(found, seen[number].unflatten(0, (1, -1)).mean(1), rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_blocks_of_which_nothing_is_asked_compute_nothing_more(backend, enhance, monkeypatch):
    calls = []
    fused = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or fused(*a, **k))
    prompt = tokenize_template(backend, TEXT, 2)
    condition = condition_of(backend, [prompt], enhance(backend).anchor.rows)
    arguments = (torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8), torch.tensor([400]))
    calls.clear()  # those of the text encoder
    backend.unet(arguments[0], arguments[2], condition.context)
    bare = len(calls)
    backend.predict(*arguments, condition, CrossAttentionEdit())
    assert len(calls) == 2 * bare
    backend.predict(*arguments, condition, CrossAttentionEdit(maps=AttentionMaps.of_positions(torch.tensor([prompt.positions]), 77)))
    assert len(calls) == 3 * bare + len(map_blocks(backend.block_scales))


def test_the_share_inside_a_mask():
    maps, mask = torch.rand(3, 6, 5), torch.zeros(3, 6, 5)
    mask[:, :3] = 1
    torch.testing.assert_close(inside(maps, mask), maps[:, :3].sum((1, 2)) / maps.sum((1, 2)))
    torch.testing.assert_close(inside(maps, torch.ones_like(maps)), torch.ones(3))


def setting(backend, count=3):
    prompts = [tokenize_template(backend, TEXT, 2)]
    g = torch.Generator().manual_seed(4)
    return prompts, torch.randn(count, 4, 8, 8, generator=g), torch.randn(count, 4, 8, 8, generator=g), torch.tensor([5, 400, 990][:count])


@torch.no_grad()
def losses_of(backend, loss, module, prompts, latents, noise, timesteps):
    rows = [0] * len(latents)
    look = loss.look(rows, torch.arange(len(latents)), latents, noise, timesteps)
    condition, edit = module.read(backend, prompts, rows, timesteps)
    backend.predict(latents, noise, timesteps, condition, replace(edit, maps=look.maps))
    return look.losses()


def test_the_word_itself_looks_where_the_word_looks(any_backend, enhance):
    """With 'face' as the identity's tokens the loss is zero; with other tokens it is not."""
    prompts, *batch = setting(any_backend)
    module = build(enhance(any_backend), replace(SEFI, stages=0, trains=("tokens",)), any_backend.block_widths)
    loss = AttentionLoss(any_backend, "face_word", prompts, None)
    assert (losses_of(any_backend, loss, module, prompts, *batch) > 1e-4).all()
    word = torch.tensor(any_backend.word_ids("face")[:1] * 2)
    with torch.no_grad():
        for key, rows in module.tokens.items():
            rows.copy_(any_backend.token_rows(key, word))
    assert losses_of(any_backend, loss, module, prompts, *batch).abs().max() < 1e-8


def test_the_mask_loss_is_the_share_outside(any_backend, enhance):
    prompts, *batch = setting(any_backend)
    module = build(enhance(any_backend), SEFI, any_backend.block_widths)
    everywhere = AttentionLoss(any_backend, "mask", prompts, torch.ones(3, 8, 8))
    nowhere = AttentionLoss(any_backend, "mask", prompts, torch.zeros(3, 8, 8))
    assert losses_of(any_backend, everywhere, module, prompts, *batch).abs().max() < 1e-6
    torch.testing.assert_close(losses_of(any_backend, nowhere, module, prompts, *batch), torch.ones(3))


def test_a_mask_that_is_not_connected_is_asked_for(backend):
    with pytest.raises(TrainingError, match="masks of Face Embed.*'face word'"):
        AttentionLoss(backend, "mask", setting(backend)[0], None)


@pytest.mark.parametrize("attention", ("face_word", "mask"))
def test_recomputed_activations_give_the_same_gradients(any_backend, enhance, photo, attention):
    """A reference prompt is asked in between; the recomputation must still see the identity's own edit."""
    from idea_engine.training.loop import _Run
    from idea_engine.training.pictures import prepare_photos

    gradients, mask = [], torch.rand(1, 8, 8)
    for checkpointing in (False, True):
        config = TrainConfig(recipe="fast", stages=3, attention=attention, steps=1, batch=3, resolution=64)
        run = _Run(any_backend, enhance(any_backend), config.resolved(), config, prepare_photos([photo], 64), build, mask)
        with torch.no_grad():
            run.module.adapter.gamma.fill_(0.5)
            torch.manual_seed(0)
            for parameter in run.module.key_value.offsets():
                parameter.normal_(std=0.1)
        with any_backend.training(checkpointing):
            run._backward()
        gradients.append([p.grad for p in run.module.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 3
    for plain, recomputed in zip(*gradients):
        torch.testing.assert_close(plain, recomputed, rtol=1e-4, atol=1e-7)


def test_the_recipes_of_before_have_no_attention_loss():
    assert all(RECIPES[name].attention_weight == 0 and RECIPES[name].stages == 0 for name in ("paper", "released"))


@pytest.mark.parametrize("attention", ("face_word", "mask"))
def test_gradients_of_the_loss_agree_with_finite_differences(any_backend, enhance, attention):
    prompts, latents, noise, timesteps = setting(any_backend)
    module = build(enhance(any_backend), replace(SEFI, stages=2), any_backend.block_widths)
    loss = AttentionLoss(any_backend, attention, prompts, torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(2)))
    rows = [0] * 3

    def value():
        look = loss.look(rows, torch.arange(3), latents, noise, timesteps)
        condition, edit = module.read(any_backend, prompts, rows, timesteps)
        any_backend.predict(latents, noise, timesteps, condition, replace(edit, maps=look.maps))
        return look.losses().mean()

    parameters = [*module.tokens.values(), *module.offsets.values()]
    with any_backend.training():
        value().backward()
        norm = torch.stack([p.grad.norm() for p in parameters]).norm()
        step = 1e-2

        def moved(size):
            with torch.no_grad():
                for p in parameters:
                    p.add_(p.grad / norm, alpha=size)
                found = value().item()
                for p in parameters:
                    p.add_(p.grad / norm, alpha=-size)
            return found

        slope = (moved(step) - moved(-step)) / (2 * step)
    assert norm > 0 and abs(slope - norm.item()) <= 0.02 * norm.item() + 1e-6 / step


def test_the_mask_loss_moves_the_attention_into_the_mask(backend, enhance):
    """Two trainings that differ in nothing else."""
    photo, mask = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(3)), torch.zeros(64, 64)
    mask[16:48, 16:48] = 1.0  # the same in the mirror
    shares = []
    for weight in (0.0, 3.0):
        recipe = replace(RECIPES["sefi"], attention_weight=weight, attention_target="mask", steps=25, batch=4)

        class Config(TrainConfig):
            def resolved(self):
                return recipe

        kept = []
        config = Config(resolution=64, templates=(TEXT,))
        train(backend, enhance(backend), [photo], config, masks=[mask], build=lambda *a: kept.append(build(*a)) or kept[0])
        prompts, latents, noise, timesteps = setting(backend)
        small = torch.nn.functional.avg_pool2d(mask[None], 8).expand(3, -1, -1)
        shares.append(attention_inside(backend, kept[0], prompts * 3, latents, noise, timesteps, small))
    assert (shares[1] > shares[0]).all() and ((0 <= shares[0]) & (shares[1] <= 1)).all()


def test_masks_must_fit_their_photographs(backend, enhance, photo):
    from idea_engine.errors import BadImageError

    config = TrainConfig(recipe="sefi", attention="mask", steps=1, batch=2, resolution=64)
    for masks, says in (([], "0 face masks for 1"), ([torch.ones(9, 9)], "9×9")):
        with pytest.raises(BadImageError, match=says):
            train(backend, enhance(backend), [photo], config, masks=masks)
    with pytest.raises(TrainingError, match="masks of Face Embed"):
        train(backend, enhance(backend), [photo], config)
