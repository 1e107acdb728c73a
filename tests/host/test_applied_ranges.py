"""Two people with ranges of their own, SDXL's two texts, and one person under two names, in real hosts."""
import pytest

from tiny_graphs import apply, probe, random_identity, sample, tiny

TOGETHER = "<anna> and <ben> in a boat"


def stage(graph, previous, loader, text, start, end, negative="ugly"):
    """Steps ``start`` to ``end`` of four, with MODEL and CLIP of ``loader``; ``text`` may be a conditioning."""
    positive = graph.add("CLIPTextEncode", clip=loader[1], text=text)[0] if isinstance(text, str) else text
    return graph.add(
        "KSamplerAdvanced", model=loader[0], positive=positive, negative=graph.add("CLIPTextEncode", clip=loader[1], text=negative)[0],
        latent_image=previous[0], add_noise="enable" if start == 0 else "disable", noise_seed=1, steps=4, cfg=5.0, sampler_name="euler",
        scheduler="normal", start_at_step=start, end_at_step=end, return_with_leftover_noise="enable" if end == 2 else "disable",
    )


def empty(graph):
    return graph.add("EmptyLatentImage", width=64, height=64, batch_size=1)


def agree(host, graph, whole, halves, other):
    """``whole`` equals ``halves`` up to the rounding of a latent that is stored between two samplers, measured by how far ``other`` is."""
    effect = host.probe(graph, "state:compare", a=whole[0], b=other[0])
    assert effect > 1e-3
    assert host.probe(graph, "state:compare", a=whole[0], b=halves[0]) < 1e-3 * effect


def two_people(graph, loader, recipe="fast"):
    return (random_identity(graph, loader, trigger, seed=seed, recipe=recipe) for trigger, seed in (("<anna>", 21), ("<ben>", 22)))


@pytest.mark.parametrize("recipe", ("fast", "sefi"))
def test_one_of_two_people_leaves_and_the_other_stays_where_their_word_then_stands(host, graph, recipe):
    """Spelled out, <anna> takes more tokens than her pseudo-tokens, so <ben> moves."""
    loader = tiny(graph)
    anna, ben = two_people(graph, loader, recipe)
    only_ben = apply(graph, loader[0], loader[1], ben[0])
    both = apply(graph, only_ben[0], only_ben[1], anna[0])
    leaving = apply(graph, only_ben[0], only_ben[1], anna[0], end_at=0.5)
    whole = stage(graph, empty(graph), leaving, TOGETHER, 0, 4)
    halves = stage(graph, stage(graph, empty(graph), both, TOGETHER, 0, 2), only_ben, TOGETHER, 2, 4)
    agree(host, graph, whole, halves, stage(graph, empty(graph), both, TOGETHER, 0, 4))


def test_a_range_that_is_changed_counts_for_a_prompt_that_was_encoded_before(host, graph):
    loader = tiny(graph)
    anna, ben = two_people(graph, loader)
    only_anna, only_ben = (apply(graph, loader[0], loader[1], person[0]) for person in (anna, ben))
    first = apply(graph, loader[0], loader[1], anna[0], end_at=0.5)
    before = apply(graph, first[0], first[1], ben[0])
    old = stage(graph, empty(graph), before, TOGETHER, 0, 4)
    host.probe(graph, "state:compare", a=old[0], b=old[0])
    after = apply(graph, first[0], first[1], ben[0], start_at=0.5)
    whole = stage(graph, empty(graph), after, TOGETHER, 0, 4)
    halves = stage(graph, stage(graph, empty(graph), only_anna, TOGETHER, 0, 2), only_ben, TOGETHER, 2, 4)
    agree(host, graph, whole, halves, old)


def test_outside_the_range_a_prompt_may_grow_by_a_chunk(host, graph):
    """75 tokens with her pseudo-tokens, more than one chunk with her word spelled out: nothing of its end is lost."""
    loader = tiny(graph)
    person = random_identity(graph, loader, "<anna-with-a-long-name>", seed=23)
    on = apply(graph, loader[0], loader[1], person[0])
    leaving = apply(graph, loader[0], loader[1], person[0], end_at=0.5)
    text = "<anna-with-a-long-name>" + " cat" * 72 + " dog"
    whole = stage(graph, empty(graph), leaving, text, 0, 4)
    halves = stage(graph, stage(graph, empty(graph), on, text, 0, 2), loader, text, 2, 4)
    agree(host, graph, whole, halves, stage(graph, empty(graph), loader, text, 0, 4))


def sdxl_text(graph, clip, text_g, text_l):
    size = dict(width=64, height=64, crop_w=0, crop_h=0, target_width=64, target_height=64)
    return graph.add("CLIPTextEncodeSDXL", clip=clip, text_g=text_g, text_l=text_l, **size)[0]


@pytest.mark.parametrize("text_g, text_l", [("a photo of <anna>", "oil on canvas"), ("oil on canvas", "a photo of <anna>")])
def test_sdxls_two_texts_may_differ(host, graph, text_g, text_l):
    """Keys and values act whichever text mentions her, and not in a prompt that shares the other text only."""
    loader = tiny(graph, "sdxl")
    on = apply(graph, loader[0], loader[1], random_identity(graph, loader, seed=24)[0])
    positive = sdxl_text(graph, on[1], text_g, text_l)
    whole, text_only = sample(graph, on[0], on[1], positive=positive), sample(graph, loader[0], on[1], positive=positive)
    assert host.probe(graph, "state:compare", a=whole[0], b=text_only[0]) > 1e-3
    others = [sdxl_text(graph, clip, *(text.replace("a photo of <anna>", "a photo of rain") for text in (text_g, text_l))) for clip in (on[1], loader[1])]
    found = host.probe(graph, "basics:digest", a=sample(graph, on[0], on[1], positive=others[0])[0], b=sample(graph, loader[0], loader[1], positive=others[1])[0])
    assert found["a"] == found["b"]


def test_outside_its_range_sdxls_longer_text_keeps_all_its_chunks(host, graph):
    """The stock node pads the shorter text with empty chunks."""
    loader = tiny(graph, "sdxl")
    person = random_identity(graph, loader, seed=25)
    leaving = apply(graph, loader[0], loader[1], person[0], end_at=0.5)
    texts = "a long and winding road " * 20 + "with a red house", "<anna>"
    lengths = host.probe(graph, "ranges:lengths", a=sdxl_text(graph, leaving[1], *texts), b=sdxl_text(graph, loader[1], *texts))
    assert lengths["whole"] == lengths["plain"] and lengths["difference"] == 0.0


def test_the_same_person_under_two_names_is_applied_once_at_each(host, graph):
    loader = tiny(graph)
    person = random_identity(graph, loader, seed=26)
    once = apply(graph, loader[0], loader[1], person[0])
    twice = apply(graph, once[0], once[1], person[0], trigger="<her>")
    found = host.probe(graph, "basics:digest", a=sample(graph, once[0], once[1])[0], b=sample(graph, twice[0], twice[1])[0])
    assert found["a"] == found["b"]


def test_the_same_person_under_two_names_has_a_range_for_each(host, graph):
    loader = tiny(graph)
    person = random_identity(graph, loader, seed=27)
    text = "<anna> beside <her>"
    anna = apply(graph, loader[0], loader[1], person[0])
    her = apply(graph, loader[0], loader[1], person[0], trigger="<her>")
    early = apply(graph, loader[0], loader[1], person[0], end_at=0.5)
    both = apply(graph, early[0], early[1], person[0], start_at=0.5, trigger="<her>")
    whole = stage(graph, empty(graph), both, text, 0, 4)
    halves = stage(graph, stage(graph, empty(graph), anna, text, 0, 2), her, text, 2, 4)
    agree(host, graph, whole, halves, stage(graph, empty(graph), anna, text, 0, 4))


def test_three_recipes_with_ranges_combined_and_in_a_hires_pass(host, graph):
    """Stages, own keys and values, and changed weights in one prompt beside another; <ben> leaves halfway, and is away in the second pass."""
    loader = tiny(graph)
    anna, ben, cleo = (
        random_identity(graph, loader, trigger, seed=seed, recipe=recipe)
        for trigger, seed, recipe in (("<anna>", 28, "sefi"), ("<ben>", 29, "fast"), ("<cleo>", 30, "paper"))
    )

    def applied(*people):
        on = loader
        for person, settings in people:
            on = apply(graph, on[0], on[1], person[0], **settings)
        return on

    def prompt(on):
        one, other = (graph.add("CLIPTextEncode", clip=on[1], text=text)[0] for text in ("<anna> and <ben> beside <cleo>", "<anna> in the hills"))
        return graph.add("ConditioningCombine", conditioning_1=one, conditioning_2=other)[0]

    def hires(first, on):
        larger = graph.add("LatentUpscale", samples=first[0], upscale_method="bilinear", width=88, height=72, crop="disabled")
        return sample(graph, on[0], on[1], positive=prompt(on), latent=larger[0], steps=3, denoise=0.3)

    early = dict(end_at=0.5)
    bounded = applied((anna, {}), (ben, early), (cleo, {}))
    other_way = applied((cleo, {}), (ben, early), (anna, {}))
    everyone = applied((ben, {}), (anna, {}), (cleo, {}))
    without_ben = applied((anna, {}), (cleo, {}))
    whole, turned, always = (hires(stage(graph, empty(graph), on, prompt(on), 0, 4), on) for on in (bounded, other_way, everyone))
    halves = stage(graph, stage(graph, empty(graph), everyone, prompt(everyone), 0, 2), without_ben, prompt(without_ben), 2, 4)
    agree(host, graph, whole, hires(halves, without_ben), always)
    agree(host, graph, whole, turned, always)
    plain_stages = applied((probe(graph, "stages:changed", {"stage": 0}, a=anna[0]), {}), (ben, early), (cleo, {}))
    assert host.probe(graph, "state:compare", a=whole[0], b=hires(stage(graph, empty(graph), plain_stages, prompt(plain_stages), 0, 4), plain_stages)[0]) > 1e-3
