"""An identity holds wherever its prompt goes: through the tokenizers, weights and attention patches of other packs."""
import pytest

from launcher.errors import NodeFailedError
from tiny_graphs import PROMPT, advanced, apply, mask, probe, random_identity, sample, tiny

STYLES = ("own tokenizer", "own engine", "rebuilt chunks", "mean restored", "break", "averaged", "concatenated", "copied")
NEEDS_ROWS = ("own engine",)  # hosts of 2024 hand token numbers to the text encoder, where nobody can put rows in their place


def written(graph, clip, style, text):
    return probe(graph, "other_packs:text", {"style": style, "text": text}, a=clip)[0]


def drawn(graph, model, clip, style, text=PROMPT):
    return sample(graph, model, clip, positive=written(graph, clip, style, text))


def digests(host, graph, **samples):
    return host.probe(graph, "basics:digest", **{name: one[0] for name, one in samples.items()})


@pytest.mark.parametrize("family", ("sd1", "sdxl"))
@pytest.mark.parametrize("style", STYLES)
def test_whichever_node_reads_the_prompt(host, graph, style, family):
    """The person acts, in the text and in the UNet; a black mask is the bare picture; a prompt without them is the untouched host's."""
    if style in NEEDS_ROWS and host.id.startswith("pip"):
        pytest.skip("this host hands token numbers to its text encoder")
    loader = tiny(graph, family)
    person = random_identity(graph, loader)
    on = apply(graph, loader[0], loader[1], person[0])
    quiet = advanced(graph, loader[0], loader[1], person[0], key_value=0.0)
    black = advanced(graph, loader[0], loader[1], person[0], mask=mask(graph, [[[0.0] * 8] * 8]))
    found = digests(host, graph, a=drawn(graph, *on_(on), style), b=drawn(graph, *on_(quiet), style), c=drawn(graph, *on_(black), style),
                    d=drawn(graph, *on_(loader), style))
    assert found["a"] != found["d"] != found["b"], "the person does not act"
    assert found["a"] != found["b"], "their keys and values do not act"
    # A host of 2024 has no place where SDXL's pooled feature could be exchanged; there it keeps the person, as the help says.
    assert found["c"] == found["d"] or (host.id.startswith("pip") and family == "sdxl"), "a black mask leaves something of them"
    nobody = "a photo of a tree in an oversized sweater"
    found = digests(host, graph, a=drawn(graph, *on_(on), style, nobody), b=drawn(graph, *on_(loader), style, nobody), c=drawn(graph, *on_(black), style, nobody))
    assert found["a"] == found["b"] == found["c"]


def on_(node):
    return node[0], node[1]


def test_stages_are_read_where_numbers_alone_arrive(host, graph):
    loader = tiny(graph)
    on = apply(graph, loader[0], loader[1], random_identity(graph, loader, recipe="sefi")[0])
    found = digests(host, graph, a=drawn(graph, *on_(on), "copied"), b=drawn(graph, *on_(on), "rebuilt chunks"), c=drawn(graph, *on_(loader), "copied"))
    assert found["a"] == found["b"] != found["c"]


@pytest.mark.parametrize("style", STYLES)
def test_a_range_ends_whichever_node_reads_the_prompt(host, graph, style):
    """A range that no step falls into is the bare picture: the two steps are at both ends."""
    if style in NEEDS_ROWS and host.id.startswith("pip"):
        pytest.skip("this host hands token numbers to its text encoder")
    loader = tiny(graph)
    never = apply(graph, loader[0], loader[1], random_identity(graph, loader)[0], start_at=0.3, end_at=0.7)
    found = digests(host, graph, a=drawn(graph, *on_(never), style), b=drawn(graph, *on_(loader), style))
    assert found["a"] == found["b"]


@pytest.mark.parametrize("family", ("sd1", "sdxl"))
@pytest.mark.parametrize("behind", (False, True), ids=("before", "behind"))
def test_people_keep_their_parts_in_a_couple_of_prompts(host, graph, behind, family):
    """Attention couple brings conditions of its own and widens the batch; our node stands before it or behind it, and there is a soft mask too."""
    if host.id.startswith("pip") and not behind:
        pytest.skip("a host of 2024 lets patches act in the order of their nodes: the help says to put ours behind")
    loader = tiny(graph, family)
    person = random_identity(graph, loader)

    def made(node, couple_texts):
        left, right = (written(graph, couple_texts[1], "rebuilt chunks", words) for words in (PROMPT, "a red house on a hill"))

        def couple(model):
            return probe(graph, "other_packs:couple", a=model, b=left, c=right)[0]

        return sample(graph, node(couple(loader[0]))[0] if behind else couple(node(loader[0])[0]), couple_texts[1])

    def on(**more):
        return lambda model: advanced(graph, model, loader[1], person[0], **more)

    def drawn_with(**more):
        return made(on(**more), on(**more)(loader[0]))

    shades = {name: mask(graph, [[[value] * 8] * 8]) for name, value in (("black", 0.0), ("soft", 0.5), ("white", 1.0))}
    found = digests(host, graph, a=drawn_with(), b=drawn_with(key_value=0.0), c=drawn_with(mask=shades["black"]),
                    d=made(lambda model: [model], loader))
    assert len({found["a"], found["b"], found["d"]}) == 3, "the person or their keys and values do not act"
    if family == "sd1":  # of SDXL the pooled feature is the sampler's own prompt's, which knows nothing of the couple
        assert found["c"] == found["d"], "a black mask leaves something of them"
    found = digests(host, graph, a=drawn_with(mask=shades["white"]), b=drawn_with(), c=drawn_with(mask=shades["soft"]), d=drawn_with(mask=shades["black"]))
    assert found["a"] == found["b"] and len({found["b"], found["c"], found["d"]}) == 3


def test_a_weight_in_the_prompt_reaches_keys_and_values(host, graph):
    """What block keys and values gain at the person's positions goes with the weight, and at 0 they gain nothing."""
    loader = tiny(graph)
    person = random_identity(graph, loader)
    on = apply(graph, loader[0], loader[1], person[0])
    gains = {}
    for weight in (0.0, 0.5, 1.0, 1.2):
        text = graph.add("CLIPTextEncode", clip=on[1], text=f"a photo of (<anna>:{weight}), smiling")
        gains[weight] = host.probe(graph, "other_packs:gain", a=on[0], b=text[0])
    assert gains[0.0] == 0.0 < gains[1.0]
    assert gains[0.5] == pytest.approx(0.5 * gains[1.0], rel=1e-4) and gains[1.2] == pytest.approx(1.2 * gains[1.0], rel=1e-4)


def test_two_people_with_equal_words_are_told_apart_by_who_was_written(host, graph):
    """At token_strength 0 both start from the same average person; Ben's keys and values do not act where Anna is written."""
    loader = tiny(graph)
    anna, ben = (random_identity(graph, loader, trigger=name, seed=seed, anchor_seed=5) for name, seed in (("<anna>", 5), ("<ben>", 6)))
    one = advanced(graph, loader[0], loader[1], anna[0], tokens=0.0)
    both = advanced(graph, one[0], one[1], ben[0], tokens=0.0)
    found = digests(host, graph, a=sample(graph, one[0], one[1]), b=sample(graph, both[0], both[1]), c=sample(graph, both[0], both[1], PROMPT.replace("<anna>", "<ben>")))
    assert found["a"] == found["b"] != found["c"]


@pytest.mark.parametrize("steps, acts", ((1, True), (2, True), (4, True)))
def test_the_usual_start_never_takes_the_person_out_of_the_last_half_of_the_steps(host, graph, steps, acts):
    """Distilled models take one step or two: the person is in the first of the last half, however noisy it is."""
    if host.id.startswith("pip"):
        pytest.skip("a host of 2024 does not tell a patch which steps it takes")
    loader = tiny(graph)
    person = random_identity(graph, loader)
    usual = apply(graph, loader[0], loader[1], person[0], start_at=0.1)
    seen = host.probe(graph, "other_packs:acting", {"steps": steps}, a=usual[0], b=graph.add("CLIPTextEncode", clip=usual[1], text=PROMPT)[0])
    assert seen["acts"][steps // 2 :] == [True] * (steps - steps // 2)
    late = apply(graph, loader[0], loader[1], person[0], start_at=0.6)
    seen = host.probe(graph, "other_packs:acting", {"steps": 1}, a=late[0], b=graph.add("CLIPTextEncode", clip=late[1], text=PROMPT)[0])
    assert seen["acts"] == [False], "what was asked for late stays late"


def test_a_thousand_prompts_in_a_session_cost_a_step_nothing(host, graph):
    """The look-up for a prompt that says nothing itself does the same work after three remembered prompts and after a thousand."""
    work = host.probe(graph, "other_packs:look_ups", {"prompts": [3, 1000]})
    assert work["operations"][0] == work["operations"][1] and work["found"] == [1, 1]


@pytest.mark.parametrize("change", ("answers four", "answers none", "has another name"))
def test_a_host_whose_private_method_has_changed_is_as_good_as_any(host, graph, change):
    loader = tiny(graph)
    person = random_identity(graph, loader)
    changed = probe(graph, "other_packs:changed_host", {"change": change}, a=loader[1])
    usual, there = apply(graph, loader[0], loader[1], person[0]), apply(graph, loader[0], changed[0], person[0])
    found = digests(host, graph, a=sample(graph, usual[0], usual[1]), b=sample(graph, there[0], there[1]), c=sample(graph, loader[0], loader[1]))
    assert found["a"] == found["b"] != found["c"]


def test_a_host_that_cuts_prompts_another_way_is_met_with_a_sentence(host, graph):
    loader = tiny(graph)
    changed = probe(graph, "other_packs:changed_host", {"change": "cuts into dicts"}, a=loader[1])
    on = apply(graph, loader[0], changed[0], random_identity(graph, loader)[0])
    with pytest.raises(NodeFailedError, match=r"ComfyUI .* cuts prompts in a way that this version of ID-EA does not understand.*expected.*Update ID-EA"):
        host.run(sampled(graph, on))


def test_a_host_that_patches_models_another_way_is_met_with_a_sentence(host, graph):
    loader = tiny(graph)
    changed = probe(graph, "other_packs:changed_model", a=loader[0])
    on = apply(graph, changed[0], loader[1], random_identity(graph, loader)[0])
    with pytest.raises(NodeFailedError, match=r"ComfyUI .* patches a MODEL in a way that this version of ID-EA does not understand.*expected.*Update ID-EA"):
        host.run(sampled(graph, on))


def sampled(graph, on):
    decoded = graph.add("SaveLatent", samples=sample(graph, on[0], on[1])[0], filename_prefix="changed")
    assert decoded
    return graph


@pytest.mark.parametrize("trigger, text", (("安娜", "安娜微笑"), ("안나", "안나가 웃는다"), ("アンナ", "笑うアンナの写真")))
def test_words_of_languages_without_spaces_are_recognised_within_others(host, graph, trigger, text):
    loader = tiny(graph)
    on = apply(graph, loader[0], loader[1], random_identity(graph, loader)[0], trigger=trigger)
    assert host.probe(graph, "other_packs:rows_in", {"text": text}, a=on[1]) == 2


def heard(host, graph):
    """What nodes say while the graph runs: (node, sentence)."""
    told = []
    host.run(graph, on_message=lambda kind, data: told.append((data["node"], data["text"])) if kind == "idea.notice" and data["node"] else None)
    return told


def test_a_person_who_cannot_be_followed_is_spoken_of_once_for_each_prompt(host, graph):
    if host.id.startswith("pip"):
        pytest.skip("a host of 2024 does not say when a sampling ends")
    loader = tiny(graph)
    on = apply(graph, loader[0], loader[1], random_identity(graph, loader)[0], trigger="<her>")
    texts = [written(graph, on[1], "lost", f"a photo of <her>, {more}") for more in ("smiling", "reading")]
    for text, seed in zip((*texts, texts[0]), (1, 2, 3)):
        graph.add("SaveLatent", samples=sample(graph, on[0], on[1], positive=text, seed=seed)[0], filename_prefix="lost")
    told = [text for node, text in heard(host, graph) if node == on.id]
    assert all("mentions <her>, but what came to the sampler does not show where" in text and "mask, range and own keys and values do not" in text for text in told)
    assert sorted(text.split("(#")[1].split(")")[0] for text in told) == sorted(text[0] for text in texts)


def test_a_person_who_acts_is_not_spoken_of(host, graph):
    loader = tiny(graph)
    on = apply(graph, loader[0], loader[1], random_identity(graph, loader)[0], trigger="<anna>", start_at=0.1)
    for style in ("averaged", "rebuilt chunks"):
        graph.add("SaveLatent", samples=drawn(graph, *on_(on), style)[0], filename_prefix="acts")
    assert heard(host, graph) == []


def test_a_range_that_no_step_falls_into_is_spoken_of(host, graph):
    if host.id.startswith("pip"):
        pytest.skip("a host of 2024 does not tell its steps")
    loader = tiny(graph)
    on = apply(graph, loader[0], loader[1], random_identity(graph, loader)[0], trigger="<anna>", start_at=0.3, end_at=0.7)
    graph.add("SaveLatent", samples=sample(graph, on[0], on[1])[0], filename_prefix="range")
    (told,) = heard(host, graph)
    assert told[0] == on.id and "No step of this sampling falls between start_at 0.3 and end_at 0.7, so <anna> does not act" in told[1]
