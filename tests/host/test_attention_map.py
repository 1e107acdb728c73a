"""The attention viewer in real hosts: right numbers, readable words, and no trace."""
import pytest

from launcher.errors import NodeFailedError
from tiny_graphs import FAMILIES, apply, random_identity, sample, tiny

TEXT = "a photo of <anna>, wearing an (oversized:1.3) sweater"
WORDS = ["a", "photo", "of", "<anna>", "wearing", "an", "oversized", "sweater"]


def person_on(graph, family="sd1", recipe="sefi"):
    loader = tiny(graph, family)
    return loader, apply(graph, loader[0], loader[1], random_identity(graph, loader, recipe=recipe, seed=81)[0])


def viewer(graph, on, latent, text=TEXT, **more):
    return graph.add("IDEA_AttentionMap", model=on[0], clip=on[1], latent=latent, text=text, percent=0.4, noise=0, **more)


@pytest.mark.parametrize("recipe", ("sefi", "fast"))
@pytest.mark.parametrize("family", FAMILIES)
def test_the_maps_are_the_networks_own_attention(host, graph, family, recipe):
    """They sum to 1 at every pixel, a trigger is the sum of its pseudo-tokens, and both agree with a softmax by hand."""
    loader, on = person_on(graph, family, recipe)
    latent = sample(graph, on[0], on[1], TEXT, size=(72, 64))
    found = host.probe(graph, "attention_maps:numbers", {"text": TEXT}, a=on[0], b=on[1], c=latent[0])
    assert found["labels"] == WORDS and found["positions"][WORDS.index("<anna>")] == 2
    assert found["shape"] == [len(WORDS), 8, 9]
    assert found["sum"] < 1e-3 and found["words"] < 1e-3 and found["hand"] < 1e-3 * found["largest"]


def merged(graph, loader, other):
    """What a LoRA does to a MODEL: a merge is a weight patch too."""
    return graph.add("ModelMergeSimple", model1=loader[0], model2=other[0], ratio=0.8)[0]


@pytest.mark.parametrize("case", ("nobody", "two people", "paper", "weight patch before", "weight patch behind"))
def test_whatever_the_model_is_made_of_the_maps_are_its_own_attention(host, graph, case):
    loader = on = tiny(graph)
    text = "a photo of <anna> beside <ben>"
    if case == "weight patch before":
        loader = (merged(graph, loader, tiny(graph, seed=50)), loader[1])
    recipes = {"nobody": (), "two people": (("<anna>", "sefi"), ("<ben>", "fast"))}.get(case, (("<anna>", "paper" if case == "paper" else "fast"),))
    on = loader
    for number, (trigger, recipe) in enumerate(recipes):
        on = apply(graph, on[0], on[1], random_identity(graph, tiny(graph), trigger, recipe, 82 + number)[0])
    if case == "weight patch behind":
        on = (merged(graph, on, tiny(graph, seed=50)), on[1])
    latent = sample(graph, on[0], on[1], text)
    found = host.probe(graph, "attention_maps:numbers", {"text": text}, a=on[0], b=on[1], c=latent[0])
    for trigger in ("<anna>", "<ben>"):
        assert (trigger in found["labels"]) == (trigger in dict(recipes))
    assert found["sum"] < 1e-3 and found["words"] < 1e-3 and found["hand"] < 1e-3 * found["largest"]


def test_sdxls_two_texts_may_differ(host, graph):
    """The words are those of the text given, found in a conditioning of two texts by what they have become there."""
    loader, on = person_on(graph, "sdxl", "fast")
    size = dict(width=64, height=64, crop_w=0, crop_h=0, target_width=64, target_height=64)
    positive = graph.add("CLIPTextEncodeSDXL", clip=on[1], text_g=TEXT, text_l=TEXT, **size)[0]
    differing = graph.add("CLIPTextEncodeSDXL", clip=on[1], text_g="oil on canvas", text_l=TEXT, **size)[0]
    latent = sample(graph, on[0], on[1], positive=positive)
    alone, same = viewer(graph, on, latent[0]), viewer(graph, on, latent[0], positive=positive)
    reports = [host.probe(graph, "attention_maps:shapes", a=node[0], b=node[1], c=node[2])["report"] for node in (alone, same)]
    assert [line.split(":")[0] for line in reports[0].splitlines()] == WORDS
    node = viewer(graph, on, latent[0], positive=differing)
    with pytest.raises(NodeFailedError, match="does not hold the text"):
        host.probe(graph, "attention_maps:shapes", a=node[0], b=node[1], c=node[2])


def test_where_no_map_is_asked_for_the_hosts_own_attention_runs_and_nothing_more(host, graph):
    """Looking computes the maps of some blocks beside it, and every attention still by the host's own function."""
    loader, on = person_on(graph)
    found = host.probe(graph, "attention_maps:attention_calls", {"text": TEXT}, a=on[0], b=on[1], c=loader[0])
    assert found["plain"]["host"] > 0 and found["drawing"] == found["plain"]
    assert found["looking"] == {"host": found["plain"]["host"], "maps": found["blocks"]}


@pytest.mark.parametrize("text, words", [
    ("a photo, of a cat!", [["a", "a</w>"], ["photo", "photo</w>"], ["of", "of</w>"], ["a", "a</w>"], ["cat", "cat</w>"]]),
    ("(<anna>:1.2) bicyclettes", [["<anna>", "**"], ["bicyclettes", "bicyclettes</w>"]]),
    ("<anna> and <anna>", [["<anna>", "**"], ["and", "and</w>"], ["<anna>", "**"]]),
    ("many words " * 45 + "<anna>", [["many", "many</w>"], ["words", "words</w>"]] * 45 + [["<anna>", "**"]]),
    ("", []),
])
def test_words_are_read_as_people_read_them(host, graph, text, words):
    _, on = person_on(graph)
    assert host.probe(graph, "attention_maps:words", {"text": text}, a=on[1]) == words


@pytest.mark.parametrize("family", FAMILIES)
def test_the_sheet_has_a_tile_for_every_word(host, graph, family):
    loader, on = person_on(graph, family)
    latent = sample(graph, on[0], on[1], TEXT, size=(96, 64))
    picture = graph.add("VAEDecode", samples=latent[0], vae=loader[2])
    node = viewer(graph, on, latent[0], image=picture[0])
    found = host.probe(graph, "attention_maps:shapes", a=node[0], b=node[1], c=node[2])
    assert found["tiles"][0] == len(WORDS) == found["distinct"]
    assert found["sheet"][0] == 1 and found["sheet"][2] > 2 * found["tiles"][2]
    assert [line.split(":")[0] for line in found["report"].splitlines()] == WORDS
    assert abs(sum(float(line.rsplit(" ", 2)[1]) for line in found["report"].splitlines()) - 100) < 1


def test_looking_leaves_no_trace(host, graph):
    loader, on = person_on(graph)
    latent = sample(graph, on[0], on[1], TEXT)
    before = host.probe(graph, "basics:digest", a=latent[0]), host.probe(graph, "state:originals", a=loader[0], b=loader[1])
    host.probe(graph, "attention_maps:shapes", a=(node := viewer(graph, on, latent[0]))[0], b=node[1], c=node[2])
    again = sample(graph, on[0], on[1], TEXT)
    del graph.prompt[latent.id], graph.prompt[node.id]
    assert (host.probe(graph, "basics:digest", a=again[0]), host.probe(graph, "state:originals", a=loader[0], b=loader[1])) == before


def test_a_conditioning_of_many_parts_may_be_looked_through(host, graph):
    """Combined, bound to an area, beside another prompt: the words are found where they are."""
    loader, on = person_on(graph)
    latent = sample(graph, on[0], on[1], TEXT, size=(128, 96))
    mine, other = (graph.add("CLIPTextEncode", clip=on[1], text=text)[0] for text in (TEXT, "many words " * 45))
    area = graph.add("ConditioningSetArea", conditioning=mine, width=64, height=64, x=0, y=0, strength=1.0)
    both = graph.add("ConditioningCombine", conditioning_1=other, conditioning_2=area[0])
    plain, through = viewer(graph, on, latent[0]), viewer(graph, on, latent[0], positive=both[0])
    reports = [host.probe(graph, "attention_maps:shapes", a=node[0], b=node[1], c=node[2])["report"] for node in (plain, through)]
    assert reports[0] == reports[1]


def test_another_prompt_and_no_prompt_are_explained(host, graph):
    loader, on = person_on(graph)
    latent = sample(graph, on[0], on[1], TEXT)
    other = graph.add("CLIPTextEncode", clip=on[1], text="<anna> at sea")
    for node, sentence in (
        (viewer(graph, on, latent[0], text="a cat in rain", positive=graph.add("CLIPTextEncode", clip=loader[1], text="ugly rocks")[0]), "does not hold the text"),
        (viewer(graph, on, latent[0], text=" , "), "no word to look for"),
    ):
        with pytest.raises(NodeFailedError, match=sentence):
            host.probe(graph, "attention_maps:shapes", a=node[0], b=node[1], c=node[2])
    assert other.id in graph.prompt
