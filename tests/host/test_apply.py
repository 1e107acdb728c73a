"""An applied identity in real hosts: exact where it must not act, present where it must, whatever artists wire."""
import pytest

from launcher.errors import NodeFailedError
from tiny_graphs import FAMILIES, PROMPT, apply, probe, random_identity, sample, tiny

RECIPES = ("fast", "paper", "released", "sefi")


def digest(host, graph, **nodes):
    return host.probe(graph, "basics:digest", **{name: node[0] for name, node in nodes.items()})


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_where_it_must_not_act_the_picture_is_the_untouched_hosts_bit_for_bit(host, graph, family, recipe):
    """Strength 0, an empty range, and (but for 'paper') a prompt without the trigger; and it does act where it must."""
    loader = tiny(graph, family)
    person = random_identity(graph, loader, recipe=recipe)
    off = apply(graph, loader[0], loader[1], person[0], strength=0.0)
    never = apply(graph, loader[0], loader[1], person[0], start_at=0.6, end_at=0.6)
    found = digest(
        host, graph, a=sample(graph, loader[0], loader[1]), b=sample(graph, off[0], off[1]), c=sample(graph, never[0], never[1]),
    )
    assert found["a"] == found["b"] == found["c"]

    on = apply(graph, loader[0], loader[1], person[0])
    found = digest(
        host, graph, a=sample(graph, loader[0], loader[1], "a cat"), b=sample(graph, on[0], on[1], "a cat"),
        c=sample(graph, loader[0], loader[1]), d=sample(graph, on[0], on[1]),
    )
    assert (found["a"] == found["b"]) == (recipe != "paper")
    assert found["c"] != found["d"]


@pytest.mark.parametrize(
    "text", ["<anna>", PROMPT, "(<anna>:1.3), smiling", "((<anna>)) in the (rain:0.5)", "<anna>'s hat, <anna>", "x<anna>y", "many words " * 45 + "<anna> at the end", "<anna>\n(a:1.1)"],
)
def test_pseudo_tokens_are_read_like_a_stock_embedding_file(host, graph, text):
    """Tokens only, saved with SaveIdentity and read by the untouched host as embedding:NAME."""
    loader = tiny(graph)
    person = probe(graph, "identities:tokens_only", {"seed": 3}, a=loader[1])
    graph.add("IDEA_SaveIdentity", identity=person[0], filename="stock_tokens")
    host.run(graph)
    on = apply(graph, loader[0], loader[1], person[0])
    ours = graph.add("CLIPTextEncode", clip=on[1], text=text)
    stock = graph.add("CLIPTextEncode", clip=loader[1], text=text.replace("<anna>", " embedding:stock_tokens "))
    found = digest(host, graph, a=ours, b=stock)
    assert found["a"] == found["b"]
    assert "embedding:stock_tokens does not exist" not in host.process.log_text()


@pytest.mark.parametrize("family", FAMILIES)
def test_an_ending_is_added_from_the_end_mark_on_where_the_person_is_mentioned_and_nowhere_else(host, graph, family):
    loader = tiny(graph, family)
    person = random_identity(graph, loader)

    def added(text, share=1.0):
        found = host.probe(graph, "endings:added", {"text": text}, a=loader[1], b=person[0])
        assert found["error"] < 1e-5
        assert [found["shares"][position] for position in found["positions"]] == pytest.approx([share] * len(found["positions"]), rel=1e-4)
        return found["positions"], found["length"]

    assert added("a photo of <anna> in a boat") == (list(range(9, 77)), 77)  # begin mark, 3 words, 2 pseudo-tokens, 3 words
    assert added("(<anna>:1.3), <anna>", 1.3) == (list(range(6, 77)), 77)  # once, however often she is mentioned, as much as where it is most
    assert added("a (photo:1.2) of (<anna>:0.4)", 0.4)[0] == list(range(6, 77))  # it goes with the weight of her word
    assert added("a cat") == ([], 77)
    filler = " cat" * 73
    assert added(f"<anna>{filler} dog") == ([76], 154)  # a full chunk ends with its end mark; the second does not mention her
    assert added(f"dog dog{filler} <anna>") == (list(range(77 + 3, 154)), 154)


@pytest.mark.parametrize("recipes", (("fast", "fast"), ("sefi", "sefi"), ("sefi", "fast")), ids="-".join)
@pytest.mark.parametrize("family", ("sd1", "sdxl"))
def test_two_people_keep_to_themselves(host, graph, family, recipes):
    loader = tiny(graph, family)
    anna, ben = (random_identity(graph, loader, trigger, seed=seed, recipe=recipe) for trigger, seed, recipe in zip(("<anna>", "<ben>"), (1, 2), recipes))
    only_anna, only_ben = (apply(graph, loader[0], loader[1], person[0]) for person in (anna, ben))
    both = apply(graph, only_anna[0], only_anna[1], ben[0])
    other_way = apply(graph, only_ben[0], only_ben[1], anna[0])
    a, b = "portrait of <anna>", "portrait of <ben> laughing"
    found = digest(host, graph, a=sample(graph, only_anna[0], only_anna[1], a), b=sample(graph, both[0], both[1], a),
                   c=sample(graph, only_ben[0], only_ben[1], b), d=sample(graph, both[0], both[1], b))
    assert found["a"] == found["b"] and found["c"] == found["d"] and found["a"] != found["c"]
    together = "<anna> and <ben> in a boat"
    order, person = (host.probe(graph, "state:compare", a=sample(graph, both[0], both[1], together)[0], b=sample(graph, on[0], on[1], together)[0])
                     for on in (other_way, only_anna))
    assert order < person / 1e5  # summed in another order, nothing else


def test_one_name_for_two_people_is_refused(host, graph):
    loader = tiny(graph)
    person = random_identity(graph, loader)
    once = apply(graph, loader[0], loader[1], person[0])
    sample(graph, *(lambda twice: (twice[0], twice[1]))(apply(graph, once[0], once[1], person[0])))
    graph.add("PreviewImage", images=graph.add("EmptyImage", width=8, height=8, batch_size=1, color=0)[0])
    last = max(graph.prompt, key=int)
    with pytest.raises(NodeFailedError, match="Two identities answer to <anna>.*trigger field"):
        host.probe(graph, "basics:digest", a=[str(int(last) - 5), 0])


def wirings(graph, clip, size=64):
    """name → a positive conditioning made of a prompt with the identity and stock conditioning nodes."""
    def encode(text):
        return graph.add("CLIPTextEncode", clip=clip, text=text)[0]

    person, scene = encode("portrait of <anna>"), encode("a long and winding road through the hills")
    mask = graph.add("SolidMask", value=1.0, width=size, height=size)
    area = dict(width=size, height=size, x=8, y=0, strength=1.0)
    ranged = dict(start=0.0, end=0.7)
    return {
        "combine": graph.add("ConditioningCombine", conditioning_1=person, conditioning_2=scene)[0],
        "concat": graph.add("ConditioningConcat", conditioning_to=scene, conditioning_from=person)[0],
        "area": graph.add("ConditioningSetArea", conditioning=person, **area)[0],
        "mask": graph.add("ConditioningSetMask", conditioning=person, mask=mask[0], strength=1.0, set_cond_area="default")[0],
        "timesteps": graph.add("ConditioningSetTimestepRange", conditioning=person, **ranged)[0],
        "long": encode("many words " * 45 + "<anna>"),
        "twice": encode("<anna> beside <anna>"),
    }


@pytest.mark.parametrize("recipe", ("fast", "sefi"))
@pytest.mark.parametrize("wiring", ("combine", "concat", "area", "mask", "timesteps", "long", "twice"))
def test_keys_and_values_follow_the_conditioning_wherever_it_is_wired(host, graph, wiring, recipe):
    """The same text condition, with and without the UNet half: only the recognised positions can make the difference."""
    loader = tiny(graph)
    person = random_identity(graph, loader, recipe=recipe)
    on = apply(graph, loader[0], loader[1], person[0])
    positive = wirings(graph, on[1])[wiring]
    whole = sample(graph, on[0], on[1], positive=positive, size=(72, 64))
    text_only = sample(graph, loader[0], on[1], positive=positive, size=(72, 64))
    assert host.probe(graph, "state:compare", a=whole[0], b=text_only[0]) > 1e-3


def test_keys_and_values_change_the_identitys_positions_only(host, graph):
    """Block by block against contexts computed by hand."""
    loader = tiny(graph)
    person = random_identity(graph, loader)
    found = host.probe(graph, "attention:contexts", a=loader[0], b=loader[1], c=person[0])
    assert found["blocks"] == 7
    assert found["own_positions"] <= 1e-6 and found["other_positions"] == 0.0 and found["negative"] == 0.0
    assert found["passes_through"]


@pytest.mark.parametrize("recipe", ("fast", "sefi"))
def test_outside_its_range_the_prompt_is_read_as_plain_text(host, graph, recipe):
    """One bounded run equals a first half with the person and a second half in the untouched host."""
    loader = tiny(graph)
    person = random_identity(graph, loader, recipe=recipe)
    bounded = apply(graph, loader[0], loader[1], person[0], end_at=0.5)
    on = apply(graph, loader[0], loader[1], person[0])

    def stage(previous, model, clip, start, end, noise):
        return graph.add(
            "KSamplerAdvanced", model=model, positive=graph.add("CLIPTextEncode", clip=clip, text=PROMPT)[0],
            negative=graph.add("CLIPTextEncode", clip=clip, text="")[0], latent_image=previous[0], add_noise=noise, noise_seed=1, steps=4, cfg=5.0,
            sampler_name="euler", scheduler="normal", start_at_step=start, end_at_step=end,
            return_with_leftover_noise="enable" if end == 2 else "disable",
        )

    empty = graph.add("EmptyLatentImage", width=64, height=64, batch_size=1)
    whole = stage(empty, bounded[0], bounded[1], 0, 4, "enable")
    halves = stage(stage(empty, on[0], on[1], 0, 2, "enable"), loader[0], loader[1], 2, 4, "disable")
    plain = stage(empty, loader[0], loader[1], 0, 4, "enable")
    effect = host.probe(graph, "state:compare", a=whole[0], b=plain[0])
    # Between its two stages the host scales the latent to storage and back, which rounds.
    assert host.probe(graph, "state:compare", a=whole[0], b=halves[0]) < 1e-3 * effect


@pytest.mark.parametrize("size, batch", [((64, 64), 3), ((72, 104), 2)])
def test_batches_and_odd_sizes(host, graph, size, batch):
    loader = tiny(graph)
    person = random_identity(graph, loader)
    on = apply(graph, loader[0], loader[1], person[0])
    latent = sample(graph, on[0], on[1], size=size)
    graph.prompt[graph.prompt[latent.id]["inputs"]["latent_image"][0]]["inputs"]["batch_size"] = batch
    plain = sample(graph, loader[0], loader[1], size=size)
    graph.prompt[graph.prompt[plain.id]["inputs"]["latent_image"][0]]["inputs"]["batch_size"] = batch
    assert host.probe(graph, "state:compare", a=latent[0], b=plain[0]) > 1e-3


def test_clip_skip_behind_the_node_still_works(host, graph):
    """Other nodes clone and change what we changed."""
    loader = tiny(graph)
    person = random_identity(graph, loader)
    on = apply(graph, loader[0], loader[1], person[0])
    skipped = graph.add("CLIPSetLastLayer", clip=on[1], stop_at_clip_layer=-2)
    found = digest(host, graph, a=sample(graph, on[0], on[1]), b=sample(graph, on[0], skipped[0]),
                   c=sample(graph, loader[0], graph.add("CLIPSetLastLayer", clip=loader[1], stop_at_clip_layer=-2)[0], "a cat"),
                   d=sample(graph, on[0], skipped[0], "a cat"))
    assert found["a"] != found["b"] and found["c"] == found["d"]


@pytest.mark.parametrize("family", ("sd1", "sdxl"))
def test_weight_patches_before_and_after_the_node_come_to_the_same(host, graph, family):
    """What a LoRA does to MODEL and CLIP, by the means that every host has: a merge is a weight patch too."""
    loader, other = tiny(graph, family), tiny(graph, family, seed=50)
    person = random_identity(graph, loader, seed=51)

    def merged(model, clip):
        return (graph.add("ModelMergeSimple", model1=model, model2=other[0], ratio=0.8)[0], graph.add("CLIPMergeSimple", clip1=clip, clip2=other[1], ratio=0.8)[0])

    before = apply(graph, *merged(loader[0], loader[1]), person[0])
    after = merged(*(lambda on: (on[0], on[1]))(apply(graph, loader[0], loader[1], person[0])))
    found = digest(host, graph, a=sample(graph, before[0], before[1]), b=sample(graph, *after), c=sample(graph, *after, "a cat"),
                   d=sample(graph, *merged(loader[0], loader[1]), "a cat"))
    assert found["a"] == found["b"] and found["c"] == found["d"] and found["a"] != found["c"]


@pytest.mark.compiler
@pytest.mark.parametrize("kind", ("fast", "sefi", "ranged", "masked"))
def test_a_compiled_network_reads_one_prompt_after_the_other(host, graph, kind):
    """As TorchCompileModel behind our node: the uncompiled host's pictures, and a new prompt compiles nothing."""
    loader = tiny(graph, seed=7)  # compiled code is kept with the model
    person = random_identity(graph, loader, recipe="sefi" if kind == "sefi" else "fast", seed=52)
    if kind == "masked":
        mask = probe(graph, "masks:mask", {"batch": [[[1.0, 0.2]]]})
        on = graph.add(
            "IDEA_ApplyIDAdapterAdvanced", model=loader[0], clip=loader[1], identity=person[0], token_strength=1.0, adapter_strength=1.0,
            key_value_strength=1.0, start_at=0.0, end_at=1.0, mask=mask[0],
        )
    else:
        on = apply(graph, loader[0], loader[1], person[0], end_at=0.6 if kind == "ranged" else 1.0)
    fast = probe(graph, "stages:compiled", a=on[0])
    looked_at = []
    for text in (PROMPT, "a cat", "a sketch of <anna>", "<anna> beside <anna>", "a house", PROMPT):
        compiled, plain, without = (sample(graph, model, on[1], text, steps=3) for model in (fast[0], on[0], loader[0]))
        looked_at.append(host.probe(graph, "stages:compilations", a=compiled[0]))
        apart = host.probe(graph, "state:compare", a=compiled[0], b=plain[0])
        assert apart < 1e-4 * max(1e-3, host.probe(graph, "state:compare", a=plain[0], b=without[0])), text
    assert looked_at[0] > 0 and len(set(looked_at[1:])) == 1


@pytest.mark.parametrize("recipe", ("fast", "sefi"))
def test_strength_fades_between_off_and_on(host, graph, recipe):
    loader = tiny(graph)
    person = random_identity(graph, loader, recipe=recipe)
    full = sample(graph, *(lambda on: (on[0], on[1]))(apply(graph, loader[0], loader[1], person[0])))
    nearly = sample(graph, *(lambda on: (on[0], on[1]))(apply(graph, loader[0], loader[1], person[0], strength=0.95)))
    half = sample(graph, *(lambda on: (on[0], on[1]))(apply(graph, loader[0], loader[1], person[0], strength=0.5)))
    near = host.probe(graph, "state:compare", a=full[0], b=nearly[0])
    far = host.probe(graph, "state:compare", a=full[0], b=half[0])
    assert 0 < near < far


def test_another_trigger_can_be_chosen(host, graph):
    loader = tiny(graph)
    person = random_identity(graph, loader)
    renamed = apply(graph, loader[0], loader[1], person[0], trigger="<her>")
    named = apply(graph, loader[0], loader[1], person[0])
    found = digest(host, graph, a=sample(graph, renamed[0], renamed[1], PROMPT.replace("<anna>", "<her>")), b=sample(graph, named[0], named[1]),
                   c=sample(graph, renamed[0], renamed[1]), d=sample(graph, loader[0], loader[1]))
    assert found["a"] == found["b"] and found["c"] == found["d"]


def test_an_identity_of_another_family_is_refused_in_words(host, graph):
    one, other = tiny(graph, "sd1"), tiny(graph, "sdxl")
    person = random_identity(graph, one)
    with pytest.raises(NodeFailedError, match="made for Stable Diffusion 1.x.*is SDXL.*train the person again"):
        host.probe(graph, "basics:digest", a=sample(graph, *(lambda on: (on[0], on[1]))(apply(graph, other[0], other[1], person[0])))[0])


def test_model_and_clip_of_two_checkpoints_are_refused_in_words(host, graph):
    one, other = tiny(graph, "sd1"), tiny(graph, "sdxl")
    person = random_identity(graph, one)
    with pytest.raises(NodeFailedError, match="MODEL and CLIP of one checkpoint"):
        host.probe(graph, "basics:digest", a=sample(graph, *(lambda on: (on[0], on[1]))(apply(graph, other[0], one[1], person[0])))[0])


def test_other_families_are_refused_with_a_list_of_what_is_supported(host, graph):
    loader = tiny(graph)
    strange = probe(graph, "tiny_models:foreign")
    person = random_identity(graph, loader)
    for model, clip in ((loader[0], strange[1]), (strange[0], loader[1])):
        with pytest.raises(NodeFailedError, match="Supported are Stable Diffusion 1.x.*SDXL"):
            host.probe(graph, "basics:digest", a=sample(graph, *(lambda on: (on[0], on[1]))(apply(graph, model, clip, person[0])))[0])
