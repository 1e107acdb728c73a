"""ApplyIDAdapterAdvanced in real hosts: the plain node where nothing special is asked, masks held against independent mixes."""
import pytest

from launcher.errors import NodeFailedError
from tiny_graphs import FAMILIES, PROMPT, advanced, apply, mask, probe, random_identity, sample, tiny


def digests(host, graph, **nodes):
    return host.probe(graph, "basics:digest", **{name: node[0] for name, node in nodes.items()})


def drawn(graph, on, text=PROMPT, size=(64, 64), pictures=1):
    latent = graph.add("EmptyLatentImage", width=size[0], height=size[1], batch_size=pictures)
    texts = [graph.add("CLIPTextEncode", clip=on[1], text=words)[0] for words in (text, "ugly")]
    return graph.add("KSampler", model=on[0], positive=texts[0], negative=texts[1], latent_image=latent[0], seed=1, steps=2, cfg=5.0,
                     sampler_name="euler", scheduler="normal", denoise=1.0)


@pytest.mark.parametrize("recipe", ("fast", "paper", "released"))
@pytest.mark.parametrize("family", FAMILIES)
def test_at_one_it_is_the_plain_node_and_at_zero_the_untouched_host_bit_for_bit(host, graph, family, recipe):
    loader = tiny(graph, family)
    person = random_identity(graph, loader, recipe=recipe)
    plain, one = apply(graph, loader[0], loader[1], person[0]), advanced(graph, loader[0], loader[1], person[0])
    zero = advanced(graph, loader[0], loader[1], person[0], 0.0, 0.0, 0.0)
    found = digests(host, graph, a=drawn(graph, plain), b=drawn(graph, one), c=drawn(graph, loader), d=drawn(graph, zero))
    assert found["a"] == found["b"] != found["c"] == found["d"]


@pytest.mark.parametrize("part", ("tokens", "adapter", "key_value"))
def test_every_strength_does_something_of_its_own(host, graph, part):
    loader = tiny(graph)
    person = random_identity(graph, loader)
    others = [name for name in ("tokens", "adapter", "key_value") if name != part]
    found = digests(
        host, graph, a=drawn(graph, advanced(graph, loader[0], loader[1], person[0])),
        b=drawn(graph, advanced(graph, loader[0], loader[1], person[0], **{part: 0.5})),
        c=drawn(graph, advanced(graph, loader[0], loader[1], person[0], **{others[0]: 0.5})),
        d=drawn(graph, advanced(graph, loader[0], loader[1], person[0], **{others[1]: 0.5})),
    )
    assert len(set(found.values())) == 4


@pytest.mark.parametrize("recipe", ("fast", "sefi"))
@pytest.mark.parametrize("family", ("sd1", "sd2-v"))
def test_a_white_mask_is_no_mask_and_a_black_one_is_no_identity_bit_for_bit(host, graph, family, recipe):
    loader = tiny(graph, family)
    person = random_identity(graph, loader, recipe=recipe)
    white, black = (advanced(graph, loader[0], loader[1], person[0], mask=mask(graph, [[[value] * 5] * 7])) for value in (1.0, 0.0))
    found = digests(host, graph, a=drawn(graph, white), b=drawn(graph, apply(graph, loader[0], loader[1], person[0])),
                    c=drawn(graph, black), d=drawn(graph, loader))
    assert found["a"] == found["b"] != found["c"] == found["d"]


def test_a_prompt_without_the_person_is_untouched_by_the_mask(host, graph):
    loader = tiny(graph)
    half = advanced(graph, loader[0], loader[1], random_identity(graph, loader)[0], mask=mask(graph, [[[1.0, 0.0]]]))
    found = digests(host, graph, a=drawn(graph, half, "a cat"), b=drawn(graph, loader, "a cat"))
    assert found["a"] == found["b"]


@pytest.mark.parametrize("recipe, timestep", (("fast", 500), ("sefi", 950), ("sefi", 50)))
@pytest.mark.parametrize("family", ("sd1", "sd2"))
@pytest.mark.parametrize("size", ((8, 8), (9, 13)))
def test_a_block_mixes_the_outputs_with_and_without_the_person_by_the_mask(host, graph, family, size, recipe, timestep):
    """Of an identity in stages, that of the noise level: white is the person as without a mask, black the checkpoint's own reading of the word."""
    loader = tiny(graph, family, seed=3)
    person = random_identity(graph, loader, recipe=recipe)
    weights = [[((3 * row + 5 * column) % 7) / 6 for column in range(size[1])] for row in range(size[0])]
    masked = advanced(graph, loader[0], loader[1], person[0], mask=mask(graph, [weights]))
    whole = apply(graph, loader[0], loader[1], person[0])
    pair = probe(graph, "masks:pair", a=graph.add("CLIPTextEncode", clip=masked[1], text=PROMPT)[0], b=graph.add("CLIPTextEncode", clip=loader[1], text=PROMPT)[0])
    found = host.probe(graph, "masks:first_block", {"size": size, "weights": sum(weights, []), "timestep": timestep}, a=masked[0], b=whole[0], c=loader[0], d=pair[0])
    assert found["effect"] > 1e-2 and found["deviation"] < 1e-4 * max(1.0, found["effect"])


@pytest.mark.parametrize("before", (True, False), ids=("before", "behind"))
def test_an_image_prompt_acts_beside_the_mask(host, graph, before):
    """With IPAdapter before our node or behind it, a block mixes the outputs with and without the person, both with the image prompt."""
    loader = tiny(graph, seed=3)
    person = random_identity(graph, loader)

    def image(model):
        return probe(graph, "stages:image_prompt", a=model)[0]

    def with_person(node, **more):
        if before:
            return node(graph, image(loader[0]), loader[1], person[0], **more)[0]
        return image(node(graph, loader[0], loader[1], person[0], **more)[0])

    weights = [[column / 7 for column in range(8)] for row in range(8)]
    masked, whole = with_person(advanced, mask=mask(graph, [weights])), with_person(apply)
    clips = advanced(graph, loader[0], loader[1], person[0], mask=mask(graph, [weights]))[1], loader[1]
    texts = [graph.add("CLIPTextEncode", clip=clip, text=PROMPT)[0] for clip in clips]
    pair = probe(graph, "masks:pair", a=texts[0], b=texts[1])
    arguments = {"size": (8, 8), "weights": sum(weights, [])}
    found = host.probe(graph, "masks:first_block", arguments, a=masked, b=whole, c=image(loader[0]), d=pair[0])
    assert found["effect"] > 1e-2 and found["deviation"] < 1e-4 * max(1.0, found["effect"])
    without = host.probe(graph, "masks:first_block", arguments, a=masked, b=whole, c=loader[0], d=pair[0])
    assert without["deviation"] > 1e-2  # the image prompt matters


def test_with_an_area_the_mask_is_fitted_to_the_area(host, graph):
    """The host cuts the picture before a patch sees it and does not say where: its half of the area is white, whatever part of the picture that is."""
    loader = tiny(graph)
    person = random_identity(graph, loader)
    left = advanced(graph, loader[0], loader[1], person[0], mask=mask(graph, [[[1.0] * 8 + [0.0] * 8] * 16]))
    text = graph.add("CLIPTextEncode", clip=left[1], text=PROMPT)
    for x in (0, 64):
        area = graph.add("ConditioningSetArea", conditioning=text[0], width=64, height=64, x=x, y=0, strength=1.0)
        drawn_there = sample(graph, left[0], left[1], positive=area[0], size=(128, 64), cfg=1.0)
        columns = host.probe(graph, "masks:columns", {"size": [8, 8]}, a=left[0], b=drawn_there[0])
        assert columns == [1.0] * 4 + [0.0] * 4


@pytest.mark.parametrize("share", (0.0, 0.5), ids=("all", "half"))
@pytest.mark.parametrize("recipe", ("paper", "fast", "sefi", "masked"))
def test_with_little_memory_the_picture_is_the_same(host, graph, recipe, share):
    """Weights that stay in main memory are cast, and 'paper's changes added, at every use."""
    loader = tiny(graph)
    masked = recipe == "masked"
    person = random_identity(graph, loader, recipe="fast" if masked else recipe)
    more = dict(mask=mask(graph, [[[1.0, 0.3, 0.0]]])) if masked else {}
    on = (advanced if masked else apply)(graph, loader[0], loader[1], person[0], **more)
    whole, plain = drawn(graph, on), drawn(graph, loader)
    partly = probe(graph, "state:partly_loaded", {"share": share}, a=on[0], b=whole[0])
    little = drawn(graph, (partly[0], on[1]))
    effect = host.probe(graph, "state:compare", a=whole[0], b=plain[0])
    assert host.probe(graph, "state:cast_at_use", a=partly[0], b=little[0]) > 0
    assert effect > 1e-2 and host.probe(graph, "state:compare", a=whole[0], b=little[0]) < 1e-4 * effect


def test_the_masks_of_a_batch_go_to_its_pictures_in_turn(host, graph):
    loader = tiny(graph)
    person = random_identity(graph, loader)
    masked = advanced(graph, loader[0], loader[1], person[0], mask=mask(graph, [[[1.0]], [[0.0]]]))
    latents = [drawn(graph, on, pictures=4) for on in (masked, apply(graph, loader[0], loader[1], person[0]), loader)]
    to_person = host.probe(graph, "masks:pictures_apart", a=latents[0][0], b=latents[1][0])
    to_nobody = host.probe(graph, "masks:pictures_apart", a=latents[0][0], b=latents[2][0])
    apart = min(max(pair) for pair in zip(to_person, to_nobody))
    assert apart > 1e-2
    assert max(to_person[0], to_person[2], to_nobody[1], to_nobody[3]) < 1e-3 * apart


@pytest.mark.parametrize("family", ("sd1", "sdxl"))
@pytest.mark.parametrize("size", ((64, 64), (72, 104), (88, 56)))
def test_two_people_each_in_their_half_at_any_size(host, graph, family, size):
    loader = tiny(graph, family)
    anna, ben = (random_identity(graph, loader, trigger, seed=seed) for trigger, seed in (("<anna>", 1), ("<ben>", 2)))
    left, right = mask(graph, [[[1.0, 0.0]]]), mask(graph, [[[0.0, 1.0]]])
    text = "<anna> and <ben> in a boat"
    one = advanced(graph, *(advanced(graph, loader[0], loader[1], anna[0], mask=left)[i] for i in (0, 1)), ben[0], mask=right)
    first = advanced(graph, loader[0], loader[1], ben[0], mask=right)
    other = advanced(graph, first[0], first[1], anna[0], mask=left)
    bare = apply(graph, *(apply(graph, loader[0], loader[1], anna[0])[i] for i in (0, 1)), ben[0])
    a, b, c = (drawn(graph, on, text, size) for on in (one, other, bare))
    effect = host.probe(graph, "state:compare", a=a[0], b=c[0])
    assert effect > 1e-2 and host.probe(graph, "state:compare", a=a[0], b=b[0]) < 5e-3 * effect  # they are summed in another order


def test_somebody_in_stages_and_somebody_without_each_in_their_half(host, graph):
    loader = tiny(graph)
    anna, ben = (random_identity(graph, loader, trigger, recipe, seed) for trigger, recipe, seed in (("<anna>", "sefi", 1), ("<ben>", "fast", 2)))
    left, right = mask(graph, [[[1.0, 0.0]]]), mask(graph, [[[0.0, 1.0]]])
    text = "<anna> and <ben> in a boat"
    first, second = (advanced(graph, loader[0], loader[1], one[0], mask=where) for one, where in ((anna, left), (ben, right)))
    both = advanced(graph, first[0], first[1], ben[0], mask=right), advanced(graph, second[0], second[1], anna[0], mask=left)
    a, b, alone = (drawn(graph, on, text) for on in (*both, first))
    order, person = (host.probe(graph, "state:compare", a=a[0], b=other[0]) for other in (b, alone))
    assert order < person / 500  # the same sum in another order; a random network multiplies its rounding


def test_a_mask_and_a_range_together(host, graph):
    """Before start_at nothing; afterwards only in the mask. A white mask with a range is the range."""
    loader = tiny(graph)
    person = random_identity(graph, loader)
    ranged = dict(start_at=0.5)
    found = digests(
        host, graph, a=drawn(graph, advanced(graph, loader[0], loader[1], person[0], mask=mask(graph, [[[1.0]]]), **ranged)),
        b=drawn(graph, apply(graph, loader[0], loader[1], person[0], **ranged)),
        c=drawn(graph, advanced(graph, loader[0], loader[1], person[0], mask=mask(graph, [[[1.0, 0.0]]]), **ranged)),
        d=drawn(graph, advanced(graph, loader[0], loader[1], person[0], mask=mask(graph, [[[1.0, 0.0]]]))),
    )
    assert found["a"] == found["b"] and len(set(found.values())) == 3


def test_the_grid_of_a_block_is_found_at_odd_sizes_and_behind_other_scalings(host, graph):
    cases = [[8, 8, 64], [8, 8, 16], [9, 13, 35], [9, 13, 12], [11, 7, 24], [16, 8, 50], [1, 1, 1]]
    assert host.probe(graph, "masks:grids", {"cases": cases}) == [[8, 8], [4, 4], [5, 7], [3, 4], [6, 4], [10, 5], [1, 1]]


def test_regions_sum_to_one_everywhere_and_empty_ones_are_left_out(host, graph):
    arguments = {"masks": {"a": [[[1.0, 0.5, 0.0, 0.0]]], "b": [[[0.0, 0.5, 1.0, 0.0]]]}, "height": 1, "width": 4, "tokens": 4, "pictures": 1, "copies": 2}
    found = host.probe(graph, "masks:region_weights", arguments)
    for row in range(2):
        for place in range(4):
            assert sum(weights[row][place] for _, weights in found) == pytest.approx(1.0)
    assert {tuple(absent): weights[0] for absent, weights in found} == {
        ("a",): [0.0, 0.25, 1.0, 0.0], ("b",): [1.0, 0.25, 0.0, 0.0], (): [0.0, 0.25, 0.0, 0.0], ("a", "b"): [0.0, 0.25, 0.0, 1.0]
    }
    arguments["masks"] = {"a": [[[1.0, 0.0, 0.0, 1.0]]]}
    assert len(host.probe(graph, "masks:region_weights", arguments)) == 2


def test_unlike_somebody_changes_the_picture_and_by_zero_it_does_not(host, graph):
    loader = tiny(graph)
    anna, ben = (random_identity(graph, loader, trigger, seed=seed) for trigger, seed in (("<anna>", 1), ("<ben>", 2)))
    found = digests(
        host, graph, a=drawn(graph, apply(graph, loader[0], loader[1], anna[0])),
        b=drawn(graph, advanced(graph, loader[0], loader[1], anna[0], unlike=ben[0], unlike_strength=0.0)),
        c=drawn(graph, advanced(graph, loader[0], loader[1], anna[0], unlike=ben[0], unlike_strength=0.4)),
    )
    assert found["a"] == found["b"] != found["c"]


@pytest.mark.parametrize("recipe", ("fast", "paper"))
def test_a_merged_person_is_saved_loaded_and_drawn_the_same(host, graph, recipe):
    loader = tiny(graph)
    anna, ben = (random_identity(graph, loader, trigger, recipe, seed) for trigger, seed in (("<anna>", 1), ("<ben>", 2)))
    merged = graph.add("IDEA_MergeIdentities", identity_a=anna[0], weight_a=0.5, identity_b=ben[0], weight_b=0.5, trigger="<anna>")
    saved = graph.add("IDEA_SaveIdentity", identity=merged[0], filename=f"merged_{recipe}")
    fresh, one = (drawn(graph, apply(graph, loader[0], loader[1], person)) for person in (merged[0], anna[0]))
    found = digests(host, graph, a=fresh, b=one)
    assert found["a"] != found["b"]
    assert "+50%" in host.run(graph).outputs[merged.id]["text"][0] and saved.id in graph.prompt
    again = type(graph)()
    loader = tiny(again)
    loaded = again.add("IDEA_LoadIdentity", identity=f"merged_{recipe}.safetensors")
    assert digests(host, again, a=drawn(again, apply(again, loader[0], loader[1], loaded[0])))["a"] == found["a"]


def test_people_of_two_recipes_are_not_merged(host, graph):
    loader = tiny(graph)
    anna, ben = random_identity(graph, loader, "<anna>", "fast"), random_identity(graph, loader, "<ben>", "paper", 2)
    graph.add("IDEA_MergeIdentities", identity_a=anna[0], weight_a=0.5, identity_b=ben[0], weight_b=0.5, trigger="<m>")
    merged = graph.add("IDEA_SaveIdentity", identity=[max(graph.prompt, key=int), 0], filename="never")
    with pytest.raises(NodeFailedError, match="recipe fast.*by paper"):
        host.run(graph)
    assert merged.id in graph.prompt
