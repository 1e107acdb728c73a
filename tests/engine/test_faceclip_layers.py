"""FaceCLIP's layers: every published key and shape at full size, every number against an independent layer at reduced size."""
import json
from pathlib import Path

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, GroundingDinoConfig
from transformers.models.grounding_dino import modeling_grounding_dino

from idea_engine.faceclip.checkpoint import layout, our_key, published_key
from idea_engine.faceclip.config import PUBLISHED
from idea_engine.faceclip.encoder import JointEncoder
from idea_engine.faceclip.face_tower import FaceTower
from idea_engine.faceclip.fuser import FaceLayer, Fuser, FusionLayer, TextLayer
from idea_engine.faceclip.prompt import END, START
from idea_engine.faceclip.text_tower import word_mask
from tiny_faceclip import enliven, faces, tiny_configs

WIDTH, INNER, HEADS, SIDE = 64, 96, 4, 6
FUSION = {"vision_param": "gamma_v", "text_param": "gamma_l", "layer_norm_vision": "layer_norm_v", "layer_norm_text": "layer_norm_l",
          "attn.vision_proj": "attn.v_proj", "attn.text_proj": "attn.l_proj", "attn.values_vision_proj": "attn.values_v_proj",
          "attn.values_text_proj": "attn.values_l_proj", "attn.out_vision_proj": "attn.out_v_proj", "attn.out_text_proj": "attn.out_l_proj"}
FACE = {"self_attn_layer_norm": "norm1", "final_layer_norm": "norm2", "fc1": "linear1", "fc2": "linear2"}
TEXT = {"layer_norm_before": "norm1", "layer_norm_after": "norm2", "fc1": "linear1", "fc2": "linear2", "self_attn.out_proj": "self_attn.out_proj"}


def published_layout():
    """Every published name, without 'model.', and its shape; the file writes numbered layers as * with their count."""
    packed = json.loads((Path(__file__).parent / "data" / "faceclip_layout.json").read_text(encoding="utf-8"))
    return {f"{encoder}.{name.replace('*', str(number), 1)}": tuple(shape)
            for encoder, names in packed.items() for name, (count, shape) in names.items() for number in range(max(count, 1))}


def test_both_encoders_have_every_published_parameter_and_no_other():
    """One to one and both ways: our keys become the names in the published file, and those become our keys."""
    wanted, ours = {f"model.{key}": shape for key, shape in published_layout().items()}, layout(PUBLISHED)
    assert len(wanted) == len(ours) == 723 + 963
    assert {published_key(key): shape for key, shape in ours.items()} == wanted
    assert {our_key(key): shape for key, shape in wanted.items()} == ours
    assert [our_key(key) for key in ours] == list(ours)  # a file without the prefix is read as it is


def theirs(kind):
    """A transformers layer of the reduced size, random."""
    config = GroundingDinoConfig(
        d_model=WIDTH, encoder_ffn_dim=INNER, encoder_attention_heads=HEADS, num_feature_levels=1, encoder_n_points=4,
        disable_custom_kernels=True, attn_implementation="eager",
    )
    made = getattr(modeling_grounding_dino, kind)(config).eval()
    enliven(made)
    return made


def take(ours, state, renamed):
    """Load a transformers layer's weights into ours under our names; every weight of both must be used."""
    found = {}
    for key, value in state.items():
        for old in sorted(renamed, key=len, reverse=True):
            if key == old or key.startswith(old + "."):
                key = renamed[old] + key[len(old):]
                break
        found[key] = value
    for kind in ("weight", "bias"):
        parts = [found.pop(f"self_attn.{name}.{kind}", None) for name in ("query", "key", "value")]
        if parts[0] is not None:
            found[f"self_attn.in_proj_{kind}"] = torch.cat(parts)
    ours.load_state_dict(found)
    return ours.eval()


def streams(batch=2, length=9):
    torch.manual_seed(5)
    make = lambda count: torch.randn(batch, count, WIDTH)
    return make(SIDE * SIDE), make(SIDE * SIDE), make(length), make(length)


def grid_inputs():
    centres = (torch.arange(SIDE) + 0.5) / SIDE
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return dict(reference_points=torch.stack([x, y], -1).view(1, SIDE * SIDE, 1, 2).expand(2, -1, -1, -1),
                spatial_shapes=torch.tensor([[SIDE, SIDE]]), spatial_shapes_list=[(SIDE, SIDE)], level_start_index=torch.tensor([0]))


@torch.no_grad()
def test_the_fusion_layer_is_that_of_transformers():
    patches, _, words, _ = streams()
    other = theirs("GroundingDinoFusionLayer")
    ours = take(FusionLayer(WIDTH, INNER // 2, HEADS // 2), other.state_dict(), FUSION)
    (v, _), (l, _) = other(patches, words)
    our_v, our_l = ours(patches, words)
    assert torch.allclose(our_v, v, atol=1e-5) and torch.allclose(our_l, l, atol=1e-5)
    assert not torch.allclose(our_l, ours.layer_norm_l(words), atol=1e-2)  # the face really enters


@torch.no_grad()
@pytest.mark.parametrize("masked", [False, True])
def test_the_text_layer_is_that_of_transformers(masked):
    _, _, words, positions = streams()
    mask = torch.rand(2, 9, 9).lt(0.5) | torch.eye(9, dtype=torch.bool) if masked else torch.ones(2, 9, 9, dtype=torch.bool)
    other = theirs("GroundingDinoTextEnhancerLayer")
    ours = take(TextLayer(WIDTH, INNER // 2, HEADS // 2), other.state_dict(), TEXT)
    expected = other(words, mask, positions)[0]
    assert torch.allclose(ours(words, positions, mask if masked else None), expected, atol=1e-5)


@torch.no_grad()
def test_the_deformable_layer_is_that_of_transformers():
    patches, positions, _, _ = streams()
    other = theirs("GroundingDinoDeformableLayer")
    ours = take(FaceLayer(WIDTH, INNER, HEADS, 4), other.state_dict(), FACE)
    everything = torch.ones(2, SIDE * SIDE, dtype=torch.bool)
    expected = other(patches, everything, position_embeddings=positions, **grid_inputs())[0]
    assert torch.allclose(ours(patches, positions), expected, atol=1e-4)


@torch.no_grad()
def test_the_whole_fuser_is_transformers_layers_in_order():
    from dataclasses import replace

    patches, patch_positions, words, positions = streams()
    config = replace(tiny_configs()["face_clip_g"], text_width=WIDTH, fuser_heads=HEADS, fuser_inner=INNER, fuser_layers=2)
    ours = Fuser(config).eval()
    others = [theirs("GroundingDinoEncoderLayer") for _ in range(2)]
    for number, other in enumerate(others):
        take(ours.encoder.fusion_layers[number], other.fusion_layer.state_dict(), FUSION)
        take(ours.encoder.text_layers[number], other.text_enhancer_layer.state_dict(), TEXT)
        take(ours.encoder.layers[number], other.deformable_layer.state_dict(), FACE)
    v, l = patches, words
    for other in others:
        (v, l), _ = other(
            vision_features=v, vision_position_embedding=patch_positions, key_padding_mask=torch.zeros(2, SIDE * SIDE, dtype=torch.bool),
            text_features=l, text_attention_mask=torch.zeros(2, 9, dtype=torch.bool), text_position_embedding=positions,
            text_self_attention_masks=torch.zeros(2, 9, 9, dtype=torch.bool), **grid_inputs(),
        )
    assert torch.allclose(ours(words, positions, patches, patch_positions), l, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("key", ["face_clip_l", "face_clip_g"])
def test_the_text_tower_is_clips(key):
    config = tiny_configs()[key]
    ours = JointEncoder(config).eval()
    enliven(ours)
    other = CLIPTextModel(CLIPTextConfig(
        vocab_size=config.vocabulary, hidden_size=config.text_width, intermediate_size=config.text_inner, num_hidden_layers=config.text_layers,
        num_attention_heads=config.text_heads, hidden_act=config.activation, eos_token_id=END, bos_token_id=START,
    )).eval()
    state = {"text_model.embeddings.token_embedding.weight": ours.token_embedding.weight,
             "text_model.embeddings.position_embedding.weight": ours.positional_embedding,
             "text_model.final_layer_norm.weight": ours.ln_final.weight, "text_model.final_layer_norm.bias": ours.ln_final.bias}
    for number, block in enumerate(ours.transformer.resblocks):
        place = f"text_model.encoder.layers.{number}."
        for name, source in (("layer_norm1", block.ln_1), ("layer_norm2", block.ln_2), ("mlp.fc1", block.mlp["c_fc"]),
                             ("mlp.fc2", block.mlp["c_proj"]), ("self_attn.out_proj", block.attn.out_proj)):
            state |= {f"{place}{name}.weight": source.weight, f"{place}{name}.bias": source.bias}
        for letter, weight, bias in zip("qkv", block.attn.in_proj_weight.chunk(3), block.attn.in_proj_bias.chunk(3)):
            state |= {f"{place}self_attn.{letter}_proj.weight": weight, f"{place}self_attn.{letter}_proj.bias": bias}
    other.load_state_dict(state, strict=False)
    ids = torch.tensor([[START, 320, 1125, 539, END] + [0] * 72, [START, *range(500, 575), END]])
    text, pooled = ours.read(ids)
    expected = other(ids)
    assert torch.allclose(text, expected.last_hidden_state, atol=1e-4)
    assert torch.allclose(pooled, expected.pooler_output, atol=1e-4)


@torch.no_grad()
def test_the_face_tower_is_a_pre_norm_transformer_over_patches():
    config = tiny_configs()["face_clip_l"]
    tower = FaceTower(config).eval()
    enliven(tower)
    pixels = faces(2)
    size, grid = config.patch, config.grid
    cut = pixels.unfold(2, size, size).unfold(3, size, size)[:, :, :grid, :grid]  # (B, 3, grid, grid, size, size)
    cut = cut.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    embed = tower.patch_embed["proj"]
    x = cut @ embed.weight.flatten(1).T + embed.bias + tower.pos_embed
    for block in tower.blocks:
        attention = torch.nn.MultiheadAttention(config.face_width, config.face_heads, batch_first=True, bias=True).eval()
        attention.load_state_dict({"in_proj_weight": block.attn.qkv.weight, "in_proj_bias": torch.zeros(3 * config.face_width),
                                   "out_proj.weight": block.attn.proj.weight, "out_proj.bias": block.attn.proj.bias})
        y = block.norm1(x)
        x = x + attention(y, y, y, need_weights=False)[0]
        x = x + block.mlp["fc2"](block.mlp["fc1"](block.norm2(x)).clamp(0, 6))
    x = tower.norm(x)
    first, norm1, second, norm2 = tower.feature
    normed = lambda y, n: (y - n.running_mean) / (n.running_var + 2e-5).sqrt() * n.weight + n.bias
    expected = normed(normed(x.flatten(1) @ first.weight.T, norm1) @ second.weight.T, norm2)
    classes, patches = tower(pixels)
    assert torch.allclose(patches, x, atol=1e-4) and torch.allclose(classes, expected, atol=1e-4)


def test_a_face_of_another_size_is_resized_bilinearly_without_smoothing():
    tower = FaceTower(tiny_configs()["face_clip_l"]).eval()
    large = faces(1).repeat_interleave(4, 2).repeat_interleave(4, 3)  # at 448 each pixel is a 4 × 4 block, so any sampling finds it again
    with torch.no_grad():
        assert torch.allclose(tower(large)[0], tower(faces(1))[0], atol=1e-5)


def test_words_see_words_and_start_and_end_only_themselves():
    ids = torch.tensor([[START, 10, 11, END, 0, 0]])
    rows = ["100000", "011000", "011000", "000100", "000010", "000001"]
    assert word_mask(ids, START, END, pad=0)[0].int().tolist() == [[int(c) for c in row] for row in rows]


def test_where_the_end_token_also_pads_the_ends_are_one_group():
    ids = torch.tensor([[START, 10, 11, END, END, END]])
    rows = ["100000", "011000", "011000", "000111", "000111", "000111"]
    assert word_mask(ids, START, END, pad=END)[0].int().tolist() == [[int(c) for c in row] for row in rows]


@torch.no_grad()
def test_the_text_tower_looks_back_only():
    ours = JointEncoder(tiny_configs()["face_clip_l"]).eval()
    enliven(ours)
    ids = torch.tensor([[START, 10, 11, 12, END]])
    changed = ids.clone()
    changed[0, 3] = 99
    before, after = ours.read(ids)[0], ours.read(changed)[0]
    assert torch.equal(before[:, :3], after[:, :3]) and not torch.allclose(before[:, 3:], after[:, 3:])
