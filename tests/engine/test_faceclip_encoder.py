"""FaceCLIP end to end at reduced size: faces and prompts."""
import pytest
import torch

from idea_engine.errors import BadImageError
from idea_engine.faceclip.load import encoder_from_state_dict
from idea_engine.faceclip.prompt import chunks
from idea_engine.prompts.clip_tokenizer import END, START, encode
from idea_engine.prompts.weights import weighted_parts
from tiny_faceclip import faces, tiny_configs, tiny_encoder

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
    halved = encoder_from_state_dict(encoder.state_dict(), encode, dtype, tiny_configs())
    fused, pooled = halved.encode(faces(2), [PROMPT, LONG])
    expected, expected_pooled = encoder.encode(faces(2), [PROMPT, LONG])
    assert fused.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(fused.flatten(1), expected.flatten(1)).min() > 0.995
    assert torch.nn.functional.cosine_similarity(pooled, expected_pooled).min() > 0.99


@torch.no_grad()
def test_a_prompt_given_as_a_string_is_one_prompt(encoder):
    fused, pooled = encoder.encode(faces(2), PROMPT)
    expected, expected_pooled = encoder.encode(faces(2), [PROMPT])
    assert fused.shape[0] == 2 and torch.equal(fused, expected) and torch.equal(pooled, expected_pooled)


@torch.no_grad()
@pytest.mark.parametrize("wrong, said", [
    (lambda face: face[0], "shape (3, 112, 112)"), (lambda face: face.permute(0, 2, 3, 1), "shape (1, 112, 112, 3)"),
    (lambda face: face[:0], "shape (0, 3, 112, 112)"), (lambda face: (face * 255).to(torch.uint8), "torch.uint8"),
    (lambda face: face * 255, "expected 0..1"), (lambda face: face * 2 - 1, "values from -1"), (lambda face: face.fill_(torch.nan), "from nan"),
])
def test_faces_of_another_shape_or_range_are_refused(encoder, wrong, said):
    with pytest.raises(BadImageError) as error:
        encoder.encode(wrong(faces(1)), PROMPT)
    assert said in str(error.value)
    assert encoder.encode(faces(1).mul(1.008).sub(0.004), PROMPT)[0].isfinite().all()  # resampling overshoots a little
