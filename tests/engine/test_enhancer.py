"""The ID-Enhancer learned from many people: a no-op at its start, a path for every face, and an identity like any other at its end."""
import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from idea_engine.backends.base import CrossAttentionEdit
from idea_engine.backends.templates import prompt_inputs, tokenize_template
from idea_engine.enhancer.file import EnhancerNotes, load_enhancer, read_label, save_enhancer, text_reading
from idea_engine.enhancer.learn import Lesson, as_read, found_in_noise, told_apart
from idea_engine.enhancer.network import Enhancer, EnhancerSizes
from idea_engine.enhancer.person import person_at_once
from idea_engine.errors import EnhancerFileError, FamilyMismatchError
from idea_engine.faces.embedding import FaceEmbedding
from idea_engine.faces.head import HEAD_SIZE, align_head, head_mask
from idea_engine.identity.anchor import with_start
from idea_engine.identity.file import load_identity, save_identity
from idea_engine.identity.operations import faded, named_tensors, untrained
from idea_engine.methods import build
from idea_engine.methods.id_ea import BALANCED, BEST, FAST, PAPER
from idea_engine.training.config import TrainConfig
from idea_engine.training.loop import train

TRUE_SHAPES = {"sd1": (768, 16), "sd2": (1024, 16), "sdxl": (2048, 70)}


def small(backend, enhance, learned=True, blocks=0):
    """A small network on a tiny model; ``learned``: its heads no longer at zero."""
    anchor = backend.family.join(enhance(backend).anchor.rows)
    spread = torch.randn(3, anchor.shape[1], generator=torch.Generator().manual_seed(5)) * 0.1
    torch.manual_seed(0)
    sizes = EnhancerSizes(anchor.shape[1], blocks or len(backend.block_widths), len(anchor), hidden=24, rank=4, head=8, names=3)
    network = Enhancer(sizes, anchor, spread)
    if learned:
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name.startswith(("ending", "up_")):
                    parameter.normal_(std=0.1)
    return network


def faces(count=1, seed=0):
    """A FaceEmbedding of ``count`` made-up photographs of somebody."""
    chance = torch.Generator().manual_seed(seed)
    vectors = torch.nn.functional.normalize(torch.randn(count, 512, generator=chance), dim=1)
    heads = torch.rand(count, HEAD_SIZE, HEAD_SIZE, 3, generator=chance)
    weights = torch.rand(count, generator=chance) + 0.1
    return FaceEmbedding(vectors, weights, torch.zeros(count, 4), torch.zeros(count, 5, 2), torch.zeros(count, 112, 112, 3), (), (), "test", "none", heads=heads)


def saved(backend, enhance, path, **options):
    notes = EnhancerNotes(backend.family.name, dict(backend.family.encoders), "test", licence="its own", step=7, figures={"likeness": 0.5})
    return save_enhancer(small(backend, enhance, **options), notes, text_reading(backend), path)


def shown(face):
    """What the network takes, of one person."""
    return face.vectors[None], face.weights[None], face.heads.movedim(-1, -3)[None] * 2 - 1


def prompts_of(backend, count):
    return [tokenize_template(backend, "a photo of {tokens} on a beach", count), tokenize_template(backend, "{tokens}", count)]


def test_at_its_start_it_changes_nothing_exactly(any_backend, enhance):
    network = small(any_backend, enhance, learned=False)
    parts = network(*(torch.cat([one, one]) for one in shown(faces())))
    prompts = prompts_of(any_backend, network.sizes.count)
    plain = any_backend.encode_text(prompt_inputs(any_backend, prompts, {}), [prompt.end for prompt in prompts])
    condition, edit = as_read(parts, plain, prompts)
    latents, steps = torch.randn(2, 4, 8, 8), torch.tensor([100, 700])
    with torch.no_grad():
        there = any_backend.predict(latents, latents, steps, condition, edit).output
        assert torch.equal(there, any_backend.predict(latents, latents, steps, plain, CrossAttentionEdit()).output)


def test_every_face_has_a_way_through_and_the_rows_are_distinct(backend, enhance):
    network = small(backend, enhance)
    many = [shown(faces(seed=seed)) for seed in range(40)]
    with torch.no_grad():
        enhanced = network.enhance(network.see(*(torch.cat(part) for part in zip(*many))))
    singular = torch.linalg.svdvals(enhanced.flatten(1) - enhanced.flatten(1).mean(0))
    assert (singular > 1e-3 * singular[0]).sum() > 16  # the published enhancer has eight (METHODS §1)
    assert (enhanced[:, 0] - enhanced[:, 1]).norm() > 0.1 * enhanced.norm()


def test_face_embedding_head_and_names_all_reach_the_parts(backend, enhance):
    network, given = small(backend, enhance), [part.clone().requires_grad_() for part in shown(faces(2))]
    parts = network(*given)
    network.anchor.requires_grad_()
    (parts.ending.square().sum() + parts.keys.square().sum() + parts.values.square().sum()).backward()
    assert all(part.grad.abs().max() > 0 for part in given)
    with torch.no_grad():
        other = small(backend, enhance)
        other.spread.neg_()
        assert not torch.equal(other(*given).ending, parts.ending)


def test_the_order_of_the_photographs_does_not_matter_and_one_shown_twice_counts_as_once(backend, enhance):
    network, (vectors, weights, heads) = small(backend, enhance), shown(faces(3))
    turned = network(vectors.flip(1), weights.flip(1), heads.flip(1))
    torch.testing.assert_close(network(vectors, weights, heads).keys, turned.keys)
    first = [part[:, :1] for part in (vectors, weights, heads)]
    torch.testing.assert_close(network(*first).ending, network(*(torch.cat([part, part], 1) for part in first)).ending)


def test_who_is_not_shown_is_the_same_average_person_whoever_it_was(backend, enhance):
    network = small(backend, enhance)
    both = [torch.cat([one, other]) for one, other in zip(shown(faces(seed=1)), shown(faces(seed=2)))]
    parts = network(*both, shown=torch.tensor([False, False]))
    assert torch.equal(parts.ending[0], parts.ending[1]) and torch.equal(parts.keys[:, 0], parts.keys[:, 1])
    assert not torch.equal(network(*both, shown=torch.tensor([True, False])).ending[0], parts.ending[0])


@pytest.mark.parametrize("family", TRUE_SHAPES)
def test_it_has_the_shapes_of_the_real_models_and_stays_small(family):
    width, blocks = TRUE_SHAPES[family]
    with torch.device("meta"):
        network = Enhancer(EnhancerSizes(width, blocks), torch.zeros(2, width), torch.zeros(16, width))
        parts = network(torch.zeros(3, 2, 512), torch.ones(3, 2), torch.zeros(3, 2, 3, HEAD_SIZE, HEAD_SIZE))
    assert parts.ending.shape == (3, width) and parts.keys.shape == parts.values.shape == (blocks, 3, 2, width)
    assert 2 * sum(parameter.numel() for parameter in network.parameters()) < 64e6  # bytes in a file


def lesson(backend, network, described=False):
    face, other = faces(2, seed=1), faces(2, seed=2)
    seen = [torch.cat([one, two]) for one, two in zip(shown(face), shown(other))]
    chance = torch.Generator().manual_seed(9)
    latents, noise = (torch.randn(2, 4, 8, 8, generator=chance) for _ in range(2))
    masks = torch.zeros(2, 8, 8)
    masks[:, 2:6, 2:6] = 1.0
    prompts = prompts_of(backend, network.sizes.count)
    words = [backend.tokenize("a photo of a person with red hair", "", 0)] * 2 if described else ()
    return Lesson(*seen, torch.tensor([True, True]), prompts, latents, noise, torch.tensor([300, 600]), masks, words)


def test_it_learns_through_the_frozen_model_of_every_family_and_leaves_that_untouched(any_backend, enhance):
    network = small(any_backend, enhance, learned=False)
    start = with_start(enhance(any_backend).anchor, any_backend, "person").start
    given = lesson(any_backend, network, described=True)
    before = {name: tensor.clone() for name, tensor in any_backend.unet.state_dict().items()}
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(12):
        with any_backend.training():
            loss = found_in_noise(network, any_backend, given, start, 0.6).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in any_backend.unet.state_dict().items())
    with any_backend.training():
        noise, words, half = (found_in_noise(network, any_backend, given, start, 0.6, told) for told in (0.0, 1.0, 0.5))
    torch.testing.assert_close(half, (noise + words) / 2)


def test_looks_at_the_same_people_in_the_same_order_cost_least():
    rows = torch.eye(6)
    assert told_apart(rows, rows) < told_apart(rows, rows.roll(1, 0))


@pytest.mark.parametrize("turn", [0, 40])
def test_the_head_is_cut_out_upright_with_what_is_above_the_face(turn):
    import cv2
    import numpy as np

    picture = np.full((240, 240, 3), 30, np.uint8)
    cv2.circle(picture, (120, 80), 14, (250, 0, 0), -1)  # a bun, above what the recognizer's crop holds
    points = np.array([[102, 130], [138, 130], [120, 150], [106, 168], [134, 168]], np.float32)
    matrix = cv2.getRotationMatrix2D((120, 140), turn, 1.0)
    turned = cv2.warpAffine(picture, matrix, (240, 240), borderValue=(30, 30, 30))
    head = align_head(turned, points @ matrix[:, :2].T + matrix[:, 2])
    assert head.shape == (HEAD_SIZE, HEAD_SIZE, 3) and head.dtype == np.uint8
    red = np.argwhere(head[..., 0] > 140).mean(0)
    assert red[0] < HEAD_SIZE / 3 and abs(red[1] - HEAD_SIZE / 2) < 2


def test_the_mask_of_a_head_holds_the_face_and_more():
    from idea_engine.faces.mask import face_mask

    box, points = torch.tensor([70.0, 60, 130, 150]), torch.tensor([[88.0, 95], [112, 95], [100, 110], [90, 125], [110, 125]])
    face, head = face_mask(box, points, 200, 200), head_mask(box, points, 200, 200)
    assert (head >= face - 1e-6).all() and head.sum() > 1.5 * face.sum() and head[0].max() == 0


def test_a_file_gives_the_same_network_up_to_half_precision_and_says_what_it_is(any_backend, enhance, tmp_path):
    network, path = small(any_backend, enhance), saved(any_backend, enhance, tmp_path / "many.safetensors")
    opened = load_enhancer(path)
    with torch.no_grad():
        one, other = (net(*shown(faces(2))) for net in (network, opened.network))
    torch.testing.assert_close(other.keys, one.keys, atol=2e-3, rtol=2e-2)
    torch.testing.assert_close(other.ending, one.ending, atol=2e-3, rtol=2e-2)
    assert opened.label.notes == read_label(path).notes and opened.label.notes.figures == {"likeness": 0.5}
    opened.label.check_fits(any_backend, "test")


def test_a_file_for_another_recognizer_encoder_or_family_is_refused_in_words(backend, enhance, tmp_path):
    label = read_label(saved(backend, enhance, tmp_path / "many.safetensors"))
    with pytest.raises(FamilyMismatchError, match="many reads faces as the recognizer test measures them, but Face Embed used other:1"):
        label.check_fits(backend, "other:1")
    with pytest.raises(FamilyMismatchError, match="another text encoder"):
        replace(label, reading=label.reading + 0.05 * label.reading.norm() / len(label.reading) ** 0.5).check_fits(backend, "test")
    with pytest.raises(FamilyMismatchError, match="Stable Diffusion 2"):
        replace(label, notes=replace(label.notes, family="sd2", encoders={"clip_h": 64})).check_fits(backend, "test")
    assert label.fits(backend, "test") and not label.fits(backend, "")


def test_half_precision_is_no_other_text_encoder(backend, enhance, tmp_path):
    label = read_label(saved(backend, enhance, tmp_path / "many.safetensors"))
    for encoder in backend.encoders.values():
        encoder.to(torch.float16)
    try:
        assert label.fits(backend, "test")
    finally:
        for encoder in backend.encoders.values():
            encoder.to(torch.float32)


def _rewritten(path, change_tensors=lambda tensors: None, **metadata):
    tensors = load_file(path)
    with safe_open(str(path), "pt") as file:
        described = {**file.metadata(), **metadata}
    change_tensors(tensors)
    save_file(tensors, path, metadata={key: value for key, value in described.items() if value})
    return path


@pytest.mark.parametrize("damage, said", [
    (dict(change_tensors=lambda tensors: tensors.pop("up_key")), "up_key"),
    (dict(change_tensors=lambda tensors: tensors.update(up_key=torch.zeros(1, 2, 3))), "up_key"),
    (dict(change_tensors=lambda tensors: tensors["out.weight"].fill_(float("nan"))), "not finite"),
    (dict(change_tensors=lambda tensors: tensors.pop("text_encoder.reading")), "which text encoder"),
    ({"idea.enhancer": ""}, "is no enhancer"),
    ({"idea.enhancer": "9"}, "Update the pack"),
    ({"idea.sizes": "{}"}, "description inside many.safetensors is damaged"),
    ({"idea.sizes": json.dumps(dict(width=10**9, blocks=1, count=2, hidden=1, rank=1, head=1, names=1))}, "damaged"),
    ({"idea.notes": "[" * 10_000}, "damaged"),
])
def test_a_damaged_file_is_refused_in_words(backend, enhance, tmp_path, damage, said):
    path = _rewritten(saved(backend, enhance, tmp_path / "many.safetensors"), **damage)
    with pytest.raises(EnhancerFileError, match=said):
        load_enhancer(path)


def test_what_is_cut_off_or_missing_is_refused_in_words(backend, enhance, tmp_path):
    path = saved(backend, enhance, tmp_path / "many.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    for broken in (path, tmp_path / "none.safetensors"):
        with pytest.raises(EnhancerFileError):
            load_enhancer(broken)


def at_once(backend, enhance, tmp_path, seed=0, **options):
    enhanced, face = enhance(backend), faces(2, seed)
    file = load_enhancer(saved(backend, enhance, tmp_path / "many.safetensors", **options))
    identity = person_at_once(file, backend, face, enhanced.anchor)
    return replace(enhanced, face=face.mean(), identity=identity), identity


def test_the_person_at_once_is_stored_faded_and_told_apart_like_any_other(any_backend, enhance, tmp_path):
    enhanced, identity = at_once(any_backend, enhance, tmp_path)
    again = load_identity(save_identity(identity, tmp_path / "anna"))
    assert all(torch.equal(tensor, named_tensors(again)[name]) for name, tensor in named_tensors(replace(identity, face=None)).items())
    assert untrained(enhanced, "<anna>").trigger == "<anna>" and identity.metadata.method == "enhanced"
    assert {"none", "its own"} == set(identity.metadata.licence.split("; and "))
    assert float(faded(identity, 0.0).ending.abs().max()) == 0.0
    _, other = at_once(any_backend, enhance, tmp_path, seed=3)
    assert not torch.equal(other.ending, identity.ending)


@pytest.mark.parametrize("recipe", [FAST, BALANCED, BEST])
def test_our_recipes_begin_at_the_person_at_once(any_backend, enhance, tmp_path, recipe):
    enhanced, identity = at_once(any_backend, enhance, tmp_path)
    started = replace(enhanced, anchor=with_start(enhanced.anchor, any_backend, recipe.start))
    begun = build(started, recipe, any_backend.block_widths).identity("<anna>", {}, "")
    for name, tensor in named_tensors(replace(identity, face=None)).items():
        torch.testing.assert_close(named_tensors(begun)[name], tensor, atol=0, rtol=0)


def test_the_papers_recipes_begin_as_ever(backend, enhance, tmp_path):
    enhanced, _ = at_once(backend, enhance, tmp_path)
    with_it, without = (build(given, PAPER, backend.block_widths).identity("<anna>", {}, "") for given in (enhanced, replace(enhanced, identity=None)))
    assert all(torch.equal(tensor, named_tensors(without)[name]) for name, tensor in named_tensors(with_it).items())


def test_training_refines_it_at_the_refining_rate(backend, enhance, tmp_path, photo):
    enhanced, identity = at_once(backend, enhance, tmp_path)
    settings = dict(recipe="fast", steps=3, batch=2, resolution=64)
    near, _ = train(backend, enhanced, [photo], TrainConfig(**settings))
    wild, _ = train(backend, enhanced, [photo], TrainConfig(**settings, lr=5 * FAST.refining_lr))
    moved = lambda person: float((person.ending - identity.ending).norm())  # noqa: E731
    assert 0 < moved(near) < moved(wild)
    assert near.metadata.config["lr"] == FAST.refining_lr and wild.metadata.config["lr"] == 5 * FAST.refining_lr


def test_an_enhancer_of_another_arrangement_of_blocks_is_refused_in_words(backend, enhance, tmp_path):
    enhanced, _ = at_once(backend, enhance, tmp_path, blocks=3)
    with pytest.raises(FamilyMismatchError, match=f"3 cross-attention blocks, but the connected MODEL has {len(backend.block_widths)}"):
        build(replace(enhanced, anchor=with_start(enhanced.anchor, backend, "person")), FAST, backend.block_widths)


def test_photographs_without_heads_are_refused_in_words(backend, enhance, tmp_path):
    file = load_enhancer(saved(backend, enhance, tmp_path / "many.safetensors"))
    with pytest.raises(FamilyMismatchError, match="Run Face Embed again"):
        person_at_once(file, backend, replace(faces(), heads=None), enhance(backend).anchor)
