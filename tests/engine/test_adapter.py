"""Enhancer, adapter and own keys and values against plain formulas."""
import torch
from torch.nn.functional import scaled_dot_product_attention

from idea_engine.applying.adapter_residual import adapter_residual
from idea_engine.backends.base import CrossAttentionEdit, add_at
from idea_engine.methods.adapter import BETA, HEADS, IDAdapter, IDKeyValue
from idea_engine.methods.enhancer import IDEnhancer, seeded

WIDTH, N, L = 32, 2, 7


def attention(module, query, memory):
    """Multi-head attention from its definition: (Lq, d) and (Lk, d) → (Lq, d)."""
    wq, wk, wv = module.in_proj_weight.chunk(3)
    bq, bk, bv = module.in_proj_bias.chunk(3)
    heads = [x.unflatten(-1, (HEADS, -1)).transpose(0, 1) for x in (query @ wq.T + bq, memory @ wk.T + bk, memory @ wv.T + bv)]
    mixed = scaled_dot_product_attention(*heads).transpose(0, 1).flatten(1)
    return mixed @ module.out_proj.weight.T + module.out_proj.bias


def test_enhancer_is_the_papers_formula():
    enhancer = seeded(0, IDEnhancer, WIDTH)
    face, anchor = torch.randn(512), torch.randn(N, WIDTH)
    query = enhancer.to_q(enhancer.expand(face)).repeat(N, 1)
    memory = enhancer.to_kv(anchor)
    expected = enhancer.out(attention(enhancer.attention, query, memory))
    torch.testing.assert_close(enhancer(face, anchor), expected)
    assert expected.shape == (N, 2 * WIDTH)


def test_adapter_is_the_papers_formula():
    adapter = seeded(0, IDAdapter, WIDTH)
    torch.nn.init.constant_(adapter.gamma, 0.3)
    context, enhanced = torch.randn(1, L, WIDTH), torch.randn(N, 2 * WIDTH)
    joined = torch.cat([context[0], adapter.project(enhanced)])
    expected = BETA * torch.tanh(torch.tensor(0.3)) * attention(adapter.attention, joined, joined)[:L]
    torch.testing.assert_close(adapter(context, enhanced)[0], expected)


def test_a_new_adapter_is_an_exact_no_op():
    adapter, key_value = IDAdapter(WIDTH), IDKeyValue((WIDTH,), blocks=3, rank=4, count=2)
    context, enhanced = torch.randn(2, L, WIDTH), torch.randn(N, 2 * WIDTH)
    assert torch.equal(context + adapter(context, enhanced), context)
    assert all(not offsets.any() for offsets in key_value(enhanced))


def test_a_baked_adapter_does_what_the_trained_one_did():
    adapter = seeded(0, IDAdapter, WIDTH)
    torch.nn.init.constant_(adapter.gamma, -0.7)
    context, enhanced = torch.randn(2, L, WIDTH), torch.randn(N, 2 * WIDTH)
    with torch.no_grad():
        baked = adapter_residual(adapter.bake(enhanced, "prompt"), context)
        torch.testing.assert_close(baked, adapter(context, enhanced))
        torch.testing.assert_close(adapter_residual(adapter.bake(enhanced, "prompt"), context, 0.5), 0.5 * baked)


def test_seeded_modules_depend_on_the_seed_and_leave_the_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = seeded(1, IDEnhancer, WIDTH), seeded(1, IDEnhancer, WIDTH), seeded(2, IDEnhancer, WIDTH)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first.out.weight, second.out.weight) and not torch.equal(first.out.weight, other.out.weight)


def test_rows_are_added_at_each_prompts_own_positions_only():
    context, rows = torch.randn(2, L, WIDTH), torch.randn(N, WIDTH)
    positions = torch.tensor([[1, 2], [4, 5]])
    changed = add_at(context, positions, rows)
    for b in range(2):
        for position in range(L):
            expected = context[b, position]
            if position in positions[b]:
                expected = expected + rows[positions[b].tolist().index(position)]
            assert torch.equal(changed[b, position], expected)


def test_an_empty_edit_passes_the_same_context_through():
    context = torch.randn(1, L, WIDTH)
    keys, values = CrossAttentionEdit().contexts(0, context)
    assert keys is context and values is context


def test_a_float32_adapter_read_in_inference_mode_is_used_like_any_other():
    adapter = seeded(0, IDAdapter, WIDTH)
    torch.nn.init.constant_(adapter.gamma, 0.3)
    context, enhanced = torch.randn(1, L, WIDTH), torch.randn(N, 2 * WIDTH)
    with torch.inference_mode():
        found = adapter_residual(adapter.bake(enhanced, "prompt"), context)
    torch.testing.assert_close(found, adapter(context, enhanced).detach())
