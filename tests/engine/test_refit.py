"""An identity on another base model: the nearest start, and a training from there."""
from dataclasses import replace

import pytest
import torch

from idea_engine.errors import FamilyMismatchError
from idea_engine.identity.enhanced import IDAnchor
from idea_engine.identity.operations import untrained
from idea_engine.training.loop import TrainConfig, train
from idea_engine.training.refit import build_from, carried_over, nearest_start

PROMPT = "a photo of {tokens} person"


def learned(enhanced, seed=4):
    """An identity a step away from its average."""
    start = untrained(enhanced, "<anna>")
    g = torch.Generator().manual_seed(seed)
    tokens = {key: rows + torch.randn(rows.shape, generator=g) for key, rows in start.tokens.items()}
    return replace(start, tokens=tokens, metadata=replace(start.metadata, method="fast", consent="agreed", base_hash="old"))


def test_on_the_same_encoder_the_start_is_the_identity_itself(any_backend, enhance):
    start = enhance(any_backend)
    person = learned(start)
    for key, rows in nearest_start(person, start).items():
        torch.testing.assert_close(rows, person.tokens[key])


def test_another_checkpoints_average_is_moved_by_the_learned_step(backend, enhance):
    start = enhance(backend)
    person = learned(start)
    moved = replace(start, anchor=IDAnchor({key: rows + 3.0 for key, rows in start.anchor.rows.items()}, start.anchor.inputs, start.anchor.names_used))
    for key, rows in nearest_start(person, moved).items():
        torch.testing.assert_close(rows - moved.anchor.rows[key], person.tokens[key] - person.anchor[key])


def test_an_encoder_the_person_never_saw_starts_at_the_average(any_backend, backend, enhance):
    person, start = learned(enhance(backend)), enhance(any_backend)
    for key, rows in nearest_start(person, start).items():
        if key not in person.tokens:
            assert torch.equal(rows, start.anchor.rows[key])
        else:
            assert not torch.allclose(rows, start.anchor.rows[key])


def test_another_number_of_pseudo_tokens_is_refused_in_words(backend, enhance):
    start = enhance(backend)
    person = learned(start)
    long = replace(person, tokens={key: torch.cat([rows, rows]) for key, rows in person.tokens.items()}, anchor={})
    with pytest.raises(FamilyMismatchError, match="4 pseudo-tokens.*Train the person again"):
        nearest_start(long, start)


def test_own_keys_and_values_begin_as_they_were_where_the_shapes_agree(any_backend, backend, enhance):
    start, there = enhance(backend), enhance(any_backend)
    g, blocks, width = torch.Generator().manual_seed(2), len(backend.block_widths), start.family.context_width
    offsets = {kind: {block: torch.randn(2, width, generator=g) for block in range(blocks)} for kind in ("key_offsets", "value_offsets")}
    person, recipe = replace(learned(start), **offsets), TrainConfig(recipe="balanced").resolved()
    keys, values = build_from(person)(there, recipe, any_backend.block_widths).own_key_value()
    if there.family == start.family and len(any_backend.block_widths) == blocks:
        assert all(torch.equal(keys[block], offsets["key_offsets"][block]) for block in range(blocks))
        assert all(torch.equal(values[block], offsets["value_offsets"][block]) for block in range(blocks))
    else:
        assert not keys.any() and not values.any()
    fewer = replace(person, **{kind: {0: rows[0]} for kind, rows in offsets.items()})
    assert not build_from(fewer)(start, recipe, backend.block_widths).own_key_value()[0].any()


def test_the_ending_begins_as_it_was_only_where_the_text_condition_is_of_its_kind(any_backend, backend, enhance):
    start, there = enhance(backend), enhance(any_backend)
    person = replace(learned(start), ending=torch.randn(start.family.context_width, generator=torch.Generator().manual_seed(1)))
    recipe = TrainConfig(recipe="balanced").resolved()
    begun = build_from(person)(there, recipe, any_backend.block_widths).ending
    assert torch.equal(begun, person.ending) if there.family == start.family else not begun.any()


def test_a_refit_trains_on_the_new_family_from_that_start_and_keeps_the_notes(any_backend, backend, enhance, photo):
    person, start = learned(enhance(backend)), enhance(any_backend)
    config = TrainConfig(steps=3, batch=1, resolution=64, templates=(PROMPT,), trigger="<anna>")
    begun = build_from(person)(start, config.resolved(), any_backend.block_widths)
    for key, rows in nearest_start(person, start).items():
        assert torch.equal(begun.tokens[key].detach(), rows)
    made, report = train(any_backend, start, [photo], config, build=build_from(person))
    refitted = carried_over(made, person)
    assert refitted.family == any_backend.family and len(report.losses) == 3
    assert refitted.metadata.consent == "agreed" and refitted.metadata.config["refitted_from"]["family"] == "sd1"
    assert refitted.trigger == "<anna>" and refitted.anchor.keys() == start.anchor.rows.keys()
