"""FaceCLIP end to end at reduced size: faces, prompts, files."""
import re

import pytest
import torch
from tiny_faceclip import faces, tiny_configs, tiny_encoder

from idea_engine.errors import FaceCLIPFileError
from idea_engine.faceclip.checkpoint import read
from idea_engine.faceclip.config import from_json, to_json
from idea_engine.faceclip.convert import convert
from idea_engine.faceclip.encoder import FaceCLIPEncoder
from idea_engine.faceclip.prompt import END, START, chunks, weighted_parts
from portrait_world.tokenizer import encode

PROMPT = "a woman in a blue shirt on a desert plateau"
LONG = " ".join(f"word{number}" for number in range(60))  # two tokens or more each


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder()


def close(a, b, tolerance=1e-4):
    return torch.allclose(a, b, atol=tolerance)


def test_the_prefix_and_the_padding_are_the_published_ones():
    config = tiny_configs()["face_clip_l"]
    made = chunks(["a cat"], encode, config, with_face=True)
    row = made.ids[0, 0].tolist()
    assert row[:10] == [START, *encode("Photo of a id person."), *encode("a cat"), END] and set(row[10:]) == {0}
    assert row[made.face_at] == encode("id")[0] == row[4]
    bare = chunks(["a cat"], encode, config, with_face=False)
    assert bare.face_at is None and bare.ids[0, 0, :4].tolist() == [START, *encode("a cat"), END]


@torch.no_grad()
def test_one_face_one_prompt(encoder):
    fused, pooled = encoder.encode(faces(1), [PROMPT])
    assert fused.shape == (1, 77, encoder.width) == (1, 77, 96) and pooled.shape == (1, 64)
    assert fused.dtype == torch.float32 and fused.isfinite().all()


@torch.no_grad()
def test_the_rows_of_the_encoders_are_joined_and_pooled_is_the_last_ones_text_before_the_projection(encoder):
    fused, pooled = encoder.encode(faces(1), [PROMPT])
    for part, rows in zip(encoder.parts, fused.split([32, 64], -1)):
        made = chunks([PROMPT], encode, part.config, True)
        expected, end = part(made.ids[:, 0], part.see(faces(1)), made.face_at)
        assert close(rows, expected)
    assert close(pooled, end)
    text, _ = part.read(made.ids[:, 0], part.see(faces(1)), made.face_at)
    assert close(pooled[0], text[0, made.ids[0, 0].tolist().index(END)])  # not multiplied by text_projection
    assert not close(pooled[0] @ part.text_projection, pooled[0], 1e-2)


@torch.no_grad()
def test_the_face_acts_through_the_prefix_and_through_the_patches(encoder):
    part = encoder.parts[0]
    one, other = part.see(faces(1)), part.see(faces(1, seed=2))
    made = chunks([PROMPT], encode, part.config, True)
    run = lambda face: part(made.ids[:, 0], face, made.face_at)[0]
    from dataclasses import replace

    assert not close(run(one), run(replace(one, classes=other.classes)), 1e-3)
    assert not close(run(one), run(replace(one, patches=other.patches)), 1e-3)


@torch.no_grad()
def test_the_word_id_in_a_prompt_stays_a_word(encoder):
    part = encoder.parts[0]
    made = chunks(["show your id card"], encode, part.config, True)
    assert made.ids[0, 0].tolist().count(encode("id")[0]) == 2
    embedded = {}
    part.transformer.register_forward_pre_hook(lambda module, inputs: embedded.setdefault("rows", inputs[0].clone())).id
    part.read(made.ids[:, 0], part.see(faces(1)), made.face_at)
    part.transformer._forward_pre_hooks.clear()
    rows = embedded["rows"][0] - part.positional_embedding
    second = made.ids[0, 0].tolist().index(encode("id")[0], made.face_at + 1)
    word = part.token_embedding.weight[encode("id")[0]]
    assert close(rows[second], word) and close(rows[made.face_at], part.proj1(part.see(faces(1)).classes)[0]) and not close(rows[made.face_at], word, 1e-2)


@torch.no_grad()
def test_without_a_face_there_is_no_prefix_and_the_patches_are_those_of_black(encoder):
    fused, _ = encoder.encode(None, [PROMPT])
    part = encoder.parts[0]
    ids = chunks([PROMPT], encode, part.config, False).ids[:, 0]
    assert close(fused[..., :32], part(ids, part.see(torch.zeros(1, 3, 112, 112)), None)[0])


@torch.no_grad()
def test_an_empty_prompt_is_the_prefix_alone(encoder):
    fused, _ = encoder.encode(faces(1), [""])
    bare, _ = encoder.encode(None, [""])
    assert fused.isfinite().all() and bare.isfinite().all() and not close(fused, bare, 1e-3)


@torch.no_grad()
def test_a_batch_is_what_its_rows_are_alone(encoder):
    prompts = [PROMPT, "a (red:1.4) hat"]
    fused, pooled = encoder.encode(faces(2), prompts)
    for row, prompt in enumerate(prompts):
        alone, alone_pooled = encoder.encode(faces(2)[row:row + 1], [prompt])
        assert close(fused[row], alone[0]) and close(pooled[row], alone_pooled[0])
    assert close(encoder.encode(faces(2), [PROMPT])[0][1], encoder.encode(faces(2)[1:], [PROMPT])[0][0])  # one prompt, two faces
    with pytest.raises(ValueError, match="3 faces and 2 prompts"):
        encoder.encode(faces(3), prompts)


@torch.no_grad()
def test_blending_faces_lies_between_them_and_weights_decide(encoder):
    both = faces(2)
    first, second = (encoder.encode(both[row:row + 1], [PROMPT])[0] for row in (0, 1))
    assert close(encoder.encode(both, [PROMPT], blend=[1, 0])[0], first) and close(encoder.encode(both, [PROMPT], blend=[0, 2])[0], second)
    mixed = encoder.encode(both, [PROMPT], blend=[1, 1])[0]
    assert mixed.shape == first.shape and close(mixed, encoder.encode(both, [PROMPT], blend=[3, 3])[0])
    distance = lambda a, b: float((a - b).norm())
    assert distance(encoder.encode(both, [PROMPT], blend=[9, 1])[0], first) < distance(mixed, first) > 0
    seen = encoder.parts[0].see(both)
    blended = seen.blend([1, 3])
    expected = seen.classes[0] * 0.25 + seen.classes[1] * 0.75
    assert close(blended.classes[0], expected / expected.norm()) and close(blended.patches[0], seen.patches[0] * 0.25 + seen.patches[1] * 0.75)
    for weights in ([1], [0, 0], [1, -1]):
        with pytest.raises(ValueError, match="Blending 2 faces"):
            encoder.encode(both, [PROMPT], blend=weights)


@torch.no_grad()
def test_a_long_prompt_takes_several_chunks_that_all_know_the_face(encoder):
    config = encoder.parts[0].config
    made = chunks([LONG, "short"], encode, config, True)
    count = made.ids.shape[1]
    assert count > 1 and (made.ids[..., made.face_at] == encode("id")[0]).all()
    inside = [token for line in made.ids[0].tolist() for token in line[7:line.index(END)]]
    assert inside == encode(LONG)  # no word is lost
    fused, pooled = encoder.encode(faces(1), [LONG])
    assert fused.shape == (1, 77 * count, 96)
    other, _ = encoder.encode(faces(1, seed=2), [LONG])
    assert all(not close(a, b, 1e-3) for a, b in zip(fused.split(77, 1), other.split(77, 1)))
    batch, _ = encoder.encode(faces(1), [LONG, "short"])
    assert close(batch[1, :77], encoder.encode(faces(1), ["short"])[0][0]) and close(batch[1, 77:154], encoder.encode(faces(1), [""])[0][0])


def test_no_short_word_is_cut_by_the_end_of_a_chunk():
    config = tiny_configs()["face_clip_l"]
    rows = chunks([LONG], encode, config, True).ids[0].tolist()
    units = [encode(word) for word in LONG.split()]
    assert max(map(len, units)) > 1
    for row in rows:
        tokens = row[7:row.index(END)]
        while tokens:
            assert units[0] == tokens[:len(units[0])]
            tokens, units = tokens[len(units[0]):], units[1:]
    assert units == []


@pytest.mark.parametrize("prompt, expected", [
    ("a (red:1.2) ((hat))", [("a ", 1.0), ("red", 1.2), (" ", 1.0), ("hat", 1.21)]),
    (r"a \(red\) hat", [("a (red) hat", 1.0)]),
    ("(a (b:0.5) c)", [("a ", 1.1), ("b", 0.5), (" c", 1.1)]),
    ("smile :) (or not", [("smile :) (or not", 1.0)]),
    ("", []),
])
def test_weights_are_read_as_the_hosts_do(prompt, expected):
    parts = weighted_parts(prompt)
    assert [text for text, _ in parts] == [text for text, _ in expected]
    assert [weight for _, weight in parts] == pytest.approx([weight for _, weight in expected])


@torch.no_grad()
def test_a_weight_moves_its_words_along_the_line_from_the_wordless_prompt(encoder):
    plain, pooled = encoder.encode(faces(1), ["a red hat"])
    heavy, heavy_pooled = encoder.encode(faces(1), ["a (red:1.5) hat"])
    empty, _ = encoder.encode(faces(1), [""])
    red = 8  # start, six of the prefix, 'a'
    assert close(heavy[0, red], empty[0, red] + (plain[0, red] - empty[0, red]) * 1.5)
    others = torch.arange(77) != red
    assert torch.equal(heavy[0, others], plain[0, others]) and torch.equal(pooled, heavy_pooled)
    assert torch.equal(encoder.encode(faces(1), ["a (red:1.0) hat"])[0], plain)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_nearly_the_same(encoder, dtype):
    halved = FaceCLIPEncoder.from_state_dict(encoder.state_dict(), encode, dtype, tiny_configs())
    fused, pooled = halved.encode(faces(2), [PROMPT, LONG])
    expected, expected_pooled = encoder.encode(faces(2), [PROMPT, LONG])
    assert fused.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(fused.flatten(1), expected.flatten(1)).min() > 0.995
    assert torch.nn.functional.cosine_similarity(pooled, expected_pooled).min() > 0.99


def published_state(encoder):
    return {f"model.{key}": value for key, value in encoder.state_dict().items()}


def test_a_published_state_dict_loads_without_a_copy(encoder):
    state = published_state(encoder)
    loaded = FaceCLIPEncoder.from_state_dict(state, encode, configs=tiny_configs())
    assert loaded.face_clip_l.proj1.weight.data_ptr() == state["model.face_clip_l.proj1.weight"].data_ptr()
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    assert torch.equal(loaded.encode(faces(1), [PROMPT])[0], encoder.encode(faces(1), [PROMPT])[0])


def test_missing_left_over_and_misshapen_keys_are_listed(encoder):
    state = published_state(encoder)
    del state["model.face_clip_l.proj1.weight"]
    state["model.face_clip_g.surprise"] = torch.zeros(1)
    state["model.face_clip_g.proj1.bias"] = torch.zeros(3)
    with pytest.raises(FaceCLIPFileError) as error:
        FaceCLIPEncoder.from_state_dict(state, encode, configs=tiny_configs())
    said = str(error.value)
    assert "1 missing: face_clip_l.proj1.weight" in said and "1 unexpected: face_clip_g.surprise" in said
    assert re.search(r"1 of another shape: face_clip_g\.proj1\.bias \(3,\) instead of \(64,\)", said)


def test_half_a_checkpoint_is_refused_by_name(encoder):
    state = {key: value for key, value in published_state(encoder).items() if "face_clip_g" not in key}
    with pytest.raises(FaceCLIPFileError, match="missing: face_clip_g"):
        FaceCLIPEncoder.from_state_dict(state, encode, configs=tiny_configs())
    with pytest.raises(FaceCLIPFileError, match="holds no FaceCLIP encoder.*found unet"):
        FaceCLIPEncoder.from_state_dict({"unet": torch.zeros(1)}, encode)


def test_conversion_and_back(encoder, tmp_path):
    """The published kind of file → safetensors → the same encoder."""
    source, target = tmp_path / "face_clip_encoder.pt", tmp_path / "made" / "faceclip.safetensors"
    torch.save(published_state(encoder), source)
    with pytest.raises(FaceCLIPFileError, match="another shape"):
        convert(source, target)  # the reduced encoder is not the published one
    assert not target.exists() and list(tmp_path.rglob("*.tmp")) == []
    described = tmp_path / "described.safetensors"
    from safetensors.torch import save_file

    save_file(encoder.state_dict(), described, metadata={"idea.faceclip": to_json(tiny_configs())})
    report = convert(described, target, "fp32")
    assert report.encoders == ("face_clip_l", "face_clip_g") and report.bytes == target.stat().st_size and "CC BY-NC 4.0" in str(report)
    state, configs = read(target)
    loaded = FaceCLIPEncoder.from_state_dict(state, encode, configs=configs)
    assert torch.equal(loaded.encode(faces(1), [PROMPT])[0], encoder.encode(faces(1), [PROMPT])[0])
    convert(target, target, "fp16")
    assert {value.dtype for value in read(target)[0].values()} == {torch.float16, torch.int64}


def test_a_published_file_is_read_with_tensors_only(encoder, tmp_path):
    class Surprise:
        def __reduce__(self):
            return print, ("executed",)

    path = tmp_path / "evil.pt"
    torch.save({"model.face_clip_l.proj1.weight": Surprise()}, path)
    with pytest.raises(FaceCLIPFileError, match="evil.pt cannot be read"):
        read(path)
    path.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(FaceCLIPFileError, match="truncated"):
        read(path)
    with pytest.raises(FaceCLIPFileError, match="no file"):
        read(tmp_path / "nowhere.pt")
    torch.save(published_state(encoder), path)
    assert read(path)[0].keys() == published_state(encoder).keys()


@pytest.mark.parametrize("text", ["{", "[]", '{"unet": {}}', '{"face_clip_l": {"text_width": "64"}}', '{"face_clip_l": {"text_width": 99999999}}'])
def test_a_false_description_of_sizes_is_refused(text):
    with pytest.raises(FaceCLIPFileError, match="cannot be read"):
        from_json(text)
    assert from_json(to_json(tiny_configs())) == tiny_configs()
