"""Merged identities: exact where exactness can be had, symmetric, lengths kept, and refused in words where it makes no sense."""
from dataclasses import replace

import pytest
import torch

from idea_engine.applying.adapter_residual import adapter_residual
from idea_engine.backends.family import ModelFamily
from idea_engine.errors import IdentityFileError, MergeError
from idea_engine.identity.file import load_identity, save_identity
from idea_engine.identity.identity import AdapterWeights, Identity, IdentityMetadata, StageTokens
from idea_engine.identity.merge import combined_licence, merge_identities
from idea_engine.identity.operations import content_hash, faded, faded_parts, named_tensors, rounded

FAMILY = ModelFamily("sdxl", {"clip_l": 16, "clip_g": 24})
D, N, BLOCKS = 40, 2, 3


def person(seed: int, method: str = "fast", family: ModelFamily = FAMILY, **meta) -> Identity:
    g = torch.Generator().manual_seed(seed)
    d = family.context_width

    def rand(*shape, scale=1.0):
        return torch.randn(*shape, generator=g) * scale

    start = torch.Generator().manual_seed(99)
    anchor = {key: torch.randn(N, width, generator=start) * 5 for key, width in family.encoders.items()}
    attention = {"in_proj_weight": rand(3 * d, d, scale=0.2), "in_proj_bias": rand(3 * d, scale=0.1), "out_proj.weight": rand(d, d, scale=0.2), "out_proj.bias": rand(d, scale=0.1)}
    made = Identity(
        family, {key: rows + rand(*rows.shape) for key, rows in anchor.items()},
        IdentityMetadata(**{"trigger": f"<p{seed}>", "method": method, "family": family.name, "licence": "free", "recognizer": "r", **meta}), anchor=anchor,
        adapter=AdapterWeights(rand(N, d), attention, 0.2 + 0.1 * seed, "tokens"), face=torch.nn.functional.normalize(rand(512), dim=0),
        key_offsets={i: rand(N, d) for i in range(BLOCKS)}, value_offsets={i: rand(N, d) for i in range(BLOCKS)}, ending=rand(d),
    )
    return rounded(made)


def steps(identity):
    return torch.cat([(rows - identity.anchor[key]).flatten() for key, rows in identity.tokens.items()])


def test_the_adapters_add_exactly_the_weighted_sum_of_what_each_would_add():
    people, weights = [person(1), person(2), person(3)], [1.0, 0.6, -0.4]
    merged = merge_identities(people, weights, "<m>")
    context = torch.randn(1, 77, D, generator=torch.Generator().manual_seed(5))
    wanted = sum(w / sum(weights) * adapter_residual(p.adapter, context) for p, w in zip(people, weights))
    assert wanted.abs().max() > 1e-2
    torch.testing.assert_close(adapter_residual(merged.adapter, context), wanted, rtol=5e-3, atol=5e-4)  # the file's float16


def test_order_does_not_matter():
    one = merge_identities([person(1), person(2), person(3)], [0.5, 0.2, 0.3], "<m>")
    other = merge_identities([person(3), person(1), person(2)], [0.3, 0.5, 0.2], "<m>")
    for name in ("tokens", "key_offsets", "value_offsets"):
        for key, rows in getattr(one, name).items():
            torch.testing.assert_close(rows.float(), getattr(other, name)[key].float(), rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(one.ending, other.ending)


def test_two_strangers_make_somebody_as_far_from_the_average_as_they_are():
    anna, ben = person(1), person(2)
    merged = merge_identities([anna, ben], [1, 1], "<m>")
    plain_mean = (steps(anna) + steps(ben)) / 2
    lengths = [float(steps(one).norm()) for one in (anna, ben)]
    assert float(plain_mean.norm()) < 0.85 * min(lengths)
    assert min(lengths) * 0.97 <= float(steps(merged).norm()) <= max(lengths) * 1.03
    cosines = [float(torch.nn.functional.cosine_similarity(steps(merged), steps(one), dim=0)) for one in (anna, ben)]
    assert min(cosines) > 0.6


def test_merging_a_person_with_themselves_gives_that_person():
    anna = person(1)
    merged = merge_identities([anna, anna.with_trigger("<b>")], [0.3, 0.7], "<m>")
    for key, rows in anna.tokens.items():
        torch.testing.assert_close(merged.tokens[key], rows, rtol=1e-5, atol=1e-5)
    for block, rows in anna.key_offsets.items():
        torch.testing.assert_close(merged.key_offsets[block].float(), rows.float(), rtol=2e-3, atol=1e-3)


def test_weight_zero_leaves_somebody_out_bit_for_bit():
    anna = person(1)
    assert content_hash(merge_identities([anna, person(2)], [0.7, 0.0], "<m>")) == content_hash(anna)


def test_a_negative_weight_leads_away():
    anna, ben = person(1), person(2)
    away = merge_identities([anna, ben], [1.0, -0.4], "<m>")

    def towards_ben(identity):
        return float(torch.nn.functional.cosine_similarity(steps(identity), steps(ben), dim=0))

    assert towards_ben(away) < towards_ben(anna) - 0.1


def test_a_merged_identity_goes_through_its_file_and_can_be_merged_and_faded_again(tmp_path):
    merged = merge_identities([person(1), person(2)], [0.4, 0.6], "<m>")
    back = load_identity(save_identity(merged, tmp_path / "m", store_face=True))
    assert content_hash(back) == content_hash(merged) and back.metadata == merged.metadata
    assert all(torch.equal(named_tensors(back)[name], tensor) for name, tensor in named_tensors(merged).items())
    again = merge_identities([back, person(3)], [0.5, 0.5], "<n>")
    assert len(again.adapter.parts()) == 3
    context = torch.randn(1, 77, D, generator=torch.Generator().manual_seed(6))
    wanted = 0.5 * adapter_residual(merged.adapter, context) + 0.5 * adapter_residual(person(3).adapter, context)
    torch.testing.assert_close(adapter_residual(again.adapter, context), wanted, rtol=5e-3, atol=5e-4)
    assert faded(again, 0.5).adapter.gate == pytest.approx(again.adapter.gate / 2)


def test_a_file_with_a_broken_stack_is_refused(tmp_path):
    merged = merge_identities([person(1), person(2)], [0.4, 0.6], "<m>")
    attention = {name: tensor[:1] if name == "out_proj.bias" else tensor for name, tensor in merged.adapter.attention.items()}
    broken = replace(merged, adapter=replace(merged.adapter, attention=attention))
    with pytest.raises(IdentityFileError, match="out_proj.bias"):
        load_identity(save_identity(broken, tmp_path / "m"))


@pytest.mark.parametrize("other,match", (
    (person(2, family=ModelFamily("sd1", {"clip_l": 16})), "SDXL.*Stable Diffusion 1.x.*Refit Identity"),
    (person(2, method="paper"), "recipe fast.*by paper"),
    (replace(person(2), key_offsets={0: person(2).key_offsets[0]}), "do not hold the same parts"),
))
def test_what_does_not_belong_together_is_refused_in_one_sentence(other, match):
    with pytest.raises(MergeError, match=match):
        merge_identities([person(1), other], [1, 1], "<m>")


@pytest.mark.parametrize("weights", ([1.0, -1.0], [0.0, 0.0], [1.0, -0.95]))
def test_weights_that_cancel_are_refused(weights):
    with pytest.raises(MergeError, match="weights"):
        merge_identities([person(1), person(2)], weights, "<m>")


def test_the_stricter_licence_comes_first_and_consent_names_who_gave_none():
    strict, free = person(1, licence="non-commercial research only", consent="agreed in May"), person(2, licence="MIT")
    meta = merge_identities([free, strict], [1, 1], "<m>").metadata
    assert meta.licence == "non-commercial research only; and MIT"
    assert "<p1>: agreed in May" in meta.consent and "<p2>: no consent noted" in meta.consent
    assert combined_licence(["", "MIT"]).startswith("unknown") and combined_licence(["", ""]) == ""


def test_the_face_is_merged_only_where_one_recognizer_made_both():
    same, mixed = (merge_identities([person(1), person(2, recognizer=name)], [1, 1], "<m>") for name in ("r", "other"))
    assert float(same.face.norm()) == pytest.approx(1.0) and mixed.face is None and mixed.metadata.recognizer == "several"


def test_parts_at_their_own_strength_touch_only_that_part():
    anna = person(1)
    assert faded_parts(anna) is anna
    assert content_hash(faded_parts(anna, 0.5, 0.5, 0.5)) == content_hash(faded(anna, 0.5))
    half = faded(anna, 0.5)
    tokens, adapter, keys = faded_parts(anna, tokens=0.5), faded_parts(anna, adapter=0.5), faded_parts(anna, key_value=0.5)
    assert all(torch.equal(tokens.tokens[k], half.tokens[k]) and torch.equal(adapter.tokens[k], anna.tokens[k]) for k in anna.tokens)
    assert (tokens.adapter.gate, adapter.adapter.gate, keys.adapter.gate) == (anna.adapter.gate, half.adapter.gate, anna.adapter.gate)
    assert torch.equal(adapter.ending, half.ending) and torch.equal(tokens.ending, anna.ending) and torch.equal(keys.ending, anna.ending)
    assert torch.equal(keys.key_offsets[0], half.key_offsets[0]) and torch.equal(tokens.value_offsets[0], anna.value_offsets[0])


def test_stages_are_merged_like_the_pseudo_tokens_they_stand_for():
    def staged(seed):
        made = person(seed)
        g = torch.Generator().manual_seed(100 + seed)
        stage = lambda: {key: rows + torch.randn(rows.shape, generator=g) for key, rows in made.anchor.items()}  # noqa: E731
        return replace(made, stages=tuple(StageTokens(stage(), stage()) for _ in range(3)))

    anna, ben = staged(1), staged(2)
    merged = merge_identities([anna, ben], [1, 1], "<m>")
    assert len(merged.stages) == 3
    for key, start in merged.anchor.items():
        lengths = [(one.stages[1].value[key] - one.anchor[key]).norm(dim=-1) for one in (merged, anna, ben)]
        torch.testing.assert_close(lengths[0], (lengths[1] + lengths[2]) / 2, rtol=1e-3, atol=1e-3)
        assert not torch.equal(merged.stages[1].value[key], start)
    with pytest.raises(MergeError, match="do not hold the same parts"):
        merge_identities([anna, person(2)], [1, 1], "<m>")
