"""Every common mistake around Apply ID Adapter is found in a graph, named and mended; no right graph hears a word."""
from __future__ import annotations

import json
import time

import pytest

from bare_pack import bare_module
from launcher.example_workflow import EXAMPLES
from launcher.workflow import to_prompt

TYPES = {
    "CheckpointLoaderSimple": ("MODEL", "CLIP", "VAE"),
    "LoraLoader": ("MODEL", "CLIP"),
    "CLIPSetLastLayer": ("CLIP",),
    "FreeU": ("MODEL",),
    "CLIPTextEncode": ("CONDITIONING",),
    "CLIPTextEncodeSDXL": ("CONDITIONING",),
    "ConditioningCombine": ("CONDITIONING",),
    "KSampler": ("LATENT",),
    "CFGGuider": ("GUIDER",),
    "SamplerCustomAdvanced": ("LATENT", "LATENT"),
    "EmptyLatentImage": ("LATENT",),
    "VAEDecode": ("IMAGE",),
    "SaveImage": (),
    "CheckpointSave": (),
    "AnySwitch": ("*",),
    "ToPipe": ("PIPE",),
    "FromPipe": ("MODEL", "CLIP", "VAE"),
    "PrimitiveStringMultiline": ("STRING",),
    "AskLanguageModel": ("STRING",),
    "Couple": ("MODEL", "CONDITIONING"),
    "ControlNetApplyAdvanced": ("CONDITIONING", "CONDITIONING"),
    "ReadsAnything": ("WHO_KNOWS",),
    "IDEA_ApplyIDAdapter": ("MODEL", "CLIP"),
    "IDEA_ApplyIDAdapterAdvanced": ("MODEL", "CLIP"),
    "IDEA_LoadIdentity": ("IDEA_IDENTITY", "STRING"),
    "IDEA_TrainIDEA": ("IDEA_IDENTITY", "IMAGE"),
    "IDEA_RefitIdentity": ("IDEA_IDENTITY", "IMAGE"),
    "IDEA_MergeIdentities": ("IDEA_IDENTITY", "STRING"),
    "IDEA_IDEnhancer": ("IDEA_ENHANCED",),
    "IDEA_AttentionMap": ("IMAGE", "IMAGE", "STRING"),
}


@pytest.fixture(scope="module")
def check():
    """The module under test, without a host."""
    with bare_module("nodes.graph_check") as module:
        yield module


class Graph:
    """A graph in API format; `add` returns the node's id."""

    def __init__(self):
        self.prompt = {}

    def add(self, kind, id=None, **inputs):
        id = id or str(len(self.prompt) + 1)
        self.prompt[id] = {"class_type": kind, "inputs": inputs}
        return id

    def checkpoint(self):
        return self.add("CheckpointLoaderSimple", ckpt_name="sd15.safetensors")

    def person(self, trigger="<anna>"):
        return self.add("IDEA_TrainIDEA", trigger=trigger, recipe="balanced")

    def apply(self, before, trigger="<anna>", identity=None, own="", **more):
        values = {"strength": 1.0, "start_at": 0.1, "end_at": 1.0, "trigger": own, **more}
        identity = identity or self.person(trigger)
        return self.add("IDEA_ApplyIDAdapter", model=[before, 0], clip=[before, 1], identity=[identity, 0], **values)

    def text(self, clip, text, slot=1):
        return self.add("CLIPTextEncode", clip=[clip, slot], text=text)

    def sampler(self, model, positive, negative=None):
        negative = negative or positive
        return self.add(
            "KSampler",
            model=[model, 0],
            positive=[positive, 0],
            negative=[negative, 0],
            seed=1,
            sampler_name="euler",
            scheduler="normal",
        )


def drawn(text="a photo of <anna>", trigger="<anna>", **more):
    """checkpoint → apply → text → sampler, all of it right but for `text`; returns the graph and the ids."""
    graph = Graph()
    loader = graph.checkpoint()
    apply = graph.apply(loader, trigger, **more)
    positive = graph.text(apply, text)
    sampler = graph.sampler(apply, positive, graph.text(apply, "ugly"))
    return graph, loader, apply, positive, sampler


def said(check, graph, **more):
    return [(notice.node_id, notice.text) for notice in check.check_graph(graph.prompt, TYPES, **more)]


# Every widget of the examples' nodes that is a text; the others are numbers and names, which are no prompts.
TEXT_WIDGETS = {
    "CLIPTextEncode": {0: "text"},
    "IDEA_TrainIDEA": {0: "trigger"},
    "IDEA_ApplyIDAdapter": {3: "trigger"},
    "IDEA_MergeIdentities": {2: "trigger"},
    "IDEA_LoadIdentity": {0: "identity", 1: "trigger"},
    "SaveImage": {0: "filename_prefix"},
    "IDEA_FaceCLIPEncode": {0: "prompt", 1: "negative_prompt"},
}
OUTPUTS = {
    **TYPES,
    "IDEA_LoadDemoModel": ("MODEL", "CLIP", "VAE", "STRING", "IMAGE"),
    "IDEA_FaceCLIPEncode": ("CONDITIONING", "CONDITIONING"),
    "IDEA_FaceCLIPLoader": ("IDEA_FACECLIP", "STRING"),
    "ConditioningSetArea": ("CONDITIONING",),
    "UNETLoader": ("MODEL",),
    "CLIPAttentionMultiply": ("CLIP",),
    "UNetSelfAttentionMultiply": ("MODEL",),
}


def example(path):
    """An example workflow as its page would queue it, with all texts and links."""
    workflow = json.loads(path.read_text(encoding="utf-8"))
    declared = {node["type"]: {"input": {"required": {}}} for node in workflow["nodes"]}
    prompt = to_prompt(workflow, declared)
    for node in workflow["nodes"]:
        if str(node["id"]) in prompt:
            for place, name in TEXT_WIDGETS.get(node["type"], {}).items():
                prompt[str(node["id"])]["inputs"].setdefault(name, node["widgets_values"][place])
    return prompt


@pytest.mark.parametrize("workflow", EXAMPLES, ids=lambda path: path.stem.split()[0])
def test_no_example_workflow_hears_a_word_and_those_that_name_a_person_do_when_the_name_is_gone(check, workflow):
    prompt = example(workflow)
    assert check.check_graph(prompt, OUTPUTS) == []
    people = [id for id, node in prompt.items() if node["class_type"] in check.APPLY]
    for node in prompt.values():
        if node["class_type"] == "CLIPTextEncode" and "<" in node["inputs"]["text"]:
            node["inputs"]["text"] = "a photo of a house"
    assert {notice.node_id for notice in check.check_graph(prompt, OUTPUTS)} == set(people)


def test_a_right_graph_hears_nothing(check):
    for text in (
        "a photo of <anna>",
        "(<anna>:1.2)'s dog",
        "portrait of <anna>, <lora:detail:0.8> I <3 it, <b>bold</b>, embedding:<cat-toy>",
    ):
        assert said(check, drawn(text)[0]) == []


def test_faceclip_beside_it_is_no_prompt_of_its_own(check):
    graph, loader, *_ = drawn()
    encoder = graph.add("IDEA_FaceCLIPEncode", prompt="a photo of a person", negative_prompt="", faceclip=["77", 0])
    graph.add("KSampler", model=[loader, 0], positive=[encoder, 0], negative=[encoder, 1], seed=1)
    assert check.check_graph(graph.prompt, OUTPUTS) == []


def test_a_prompt_without_the_person_is_told_which_word_goes_where(check):
    graph, _, apply, positive, _ = drawn("a photo of a woman")
    [(node, text)] = said(check, graph)
    assert node == apply and "mentions <anna>" in text and f"Write <anna> into CLIP Text Encode (#{positive})." in text


@pytest.mark.parametrize("written", ("<Anna>", "anna", "Anna", "< anna >", "[anna]"))
def test_a_word_that_is_almost_the_trigger_is_shown_with_the_right_one(check, written):
    graph, _, apply, positive, _ = drawn(f"a photo of {written} at sea")
    [(node, text)] = said(check, graph)
    assert (
        node == apply
        and f"CLIP Text Encode (#{positive}) says {written.strip('[]')}, but" in text
        and "Write <anna>" in text
    )


def test_a_wrong_case_is_told_beside_a_right_mention_but_a_plain_name_is_not(check):
    graph, _, apply, _, _ = drawn("<anna> and <Anna> at sea")
    assert [(node, "says <Anna>" in text) for node, text in said(check, graph)] == [(apply, True)]
    assert said(check, drawn("<anna>, a woman called Anna")[0]) == []


def test_many_nodes_with_one_mistake_are_one_sentence(check):
    graph = Graph()
    loader = graph.checkpoint()
    apply = graph.apply(loader)
    texts = [graph.text(apply, "a photo of <Anna>") for _ in range(5)]
    samplers = [graph.sampler(loader, graph.text(apply, "a photo of <anna>")) for _ in range(2)]
    for text in texts:
        graph.sampler(apply, text)
    [almost, model] = [text for _, text in said(check, graph)]
    named = ", ".join(f"CLIP Text Encode (#{id})" for id in texts[:3])
    assert almost.startswith(f"{named} and 2 more say <Anna>, but the person answers to <anna>.")
    assert model.startswith(f"KSampler (#{samplers[0]}), KSampler (#{samplers[1]}) draw a prompt")
    assert "their model comes from" in model


def test_an_unknown_person_is_told_once_on_the_last_node_before_the_text(check):
    graph = Graph()
    first = graph.apply(graph.checkpoint(), "<anna>")
    last = graph.apply(first, "<ben>")
    positive = graph.text(last, "<anna>, <ben> and <bob>")
    graph.sampler(last, positive)
    [(node, text)] = said(check, graph)
    assert node == last and "says <bob>" in text and "<ben>, <anna>" in text


def test_a_text_on_the_checkpoints_clip_is_told(check):
    graph = Graph()
    loader = graph.checkpoint()
    skip = graph.add("CLIPSetLastLayer", clip=[loader, 1], stop_at_clip_layer=-2)
    apply = graph.apply(loader)
    positive = graph.text(skip, "a photo of <anna>", slot=0)
    graph.sampler(apply, positive, graph.text(apply, "ugly"))
    [(node, text)] = said(check, graph)
    assert (
        node == apply
        and f"CLIP Text Encode (#{positive}) mentions <anna>, but its clip comes from CLIP Set Last Layer (#{skip})"
        in text
    )
    assert "Connect this node's clip with that text node." in text


def test_one_of_two_texts_on_the_checkpoints_clip_is_told_only_where_this_nodes_model_draws_it(check):
    graph, loader, apply, _, _ = drawn()
    bare = graph.text(loader, "a photo of <anna>")
    graph.sampler(loader, bare)  # a comparison: the whole of it without the person
    assert said(check, graph) == []
    graph.sampler(apply, bare)
    [(node, text)] = said(check, graph)
    assert node == apply and f"(#{bare}) mentions <anna>" in text


def test_a_text_on_the_first_of_two_people_is_told_on_the_second(check):
    graph = Graph()
    first = graph.apply(graph.checkpoint(), "<anna>")
    last = graph.apply(first, "<ben>")
    graph.sampler(last, graph.text(first, "<anna> and <ben>"))
    [(node, text)] = said(check, graph)
    assert (
        node == last
        and f"its clip comes from IDEA Apply ID Adapter (#{first}), which does not know <ben>. Connect this node's clip"
        in text
    )


def test_two_people_beside_each_other_are_told_to_stand_in_a_row(check):
    graph = Graph()
    loader = graph.checkpoint()
    anna, ben = graph.apply(loader, "<anna>"), graph.apply(loader, "<ben>")
    graph.sampler(ben, graph.text(ben, "<anna> and <ben>"))
    [(node, text)] = said(check, graph)
    assert (
        node == anna
        and f"Put the two in a row: this node's model and clip into IDEA Apply ID Adapter (#{ben})." in text
    )


@pytest.mark.parametrize("guided", (False, True))
def test_a_sampler_on_the_checkpoints_model_is_told(check, guided):
    graph = Graph()
    loader = graph.checkpoint()
    apply = graph.apply(loader)
    patched = graph.add("FreeU", model=[loader, 0], b1=1.3)
    positive = graph.add(
        "ControlNetApplyAdvanced",
        positive=[graph.text(apply, "<anna>"), 0],
        negative=[graph.text(apply, "ugly"), 0],
        strength=1.0,
    )
    if guided:
        sampler = graph.add("CFGGuider", model=[patched, 0], positive=[positive, 0], negative=[positive, 1], cfg=7.0)
        graph.add("SamplerCustomAdvanced", guider=[sampler, 0])
    else:
        sampler = graph.sampler(patched, positive)
    [(node, text)] = said(check, graph)
    assert (
        node == apply
        and f"(#{sampler}) draws a prompt that mentions <anna>, but its model comes from Free U (#{patched})" in text
    )
    assert "Connect this node's model with that sampler." in text


def test_a_node_before_this_one_that_takes_model_and_prompt_is_no_sampler_past_it(check):
    graph = Graph()
    loader = graph.checkpoint()
    apply = graph.apply(loader)
    positive = graph.text(apply, "<anna>")
    couple = graph.add("Couple", model=[loader, 0], positive=[positive, 0])
    graph.prompt[apply]["inputs"]["model"] = [couple, 0]
    graph.sampler(apply, positive)
    assert said(check, graph) == []


def test_a_clip_that_leads_nowhere_is_told(check):
    graph = Graph()
    loader = graph.checkpoint()
    apply = graph.apply(loader)
    graph.add("LoraLoader", model=[apply, 0], clip=[apply, 1], lora_name="anna.safetensors")
    graph.sampler(loader, graph.text(loader, "a photo of a woman"))
    [(node, text)] = said(check, graph)
    assert node == apply and text.startswith("No text node reads with this node's clip")


def test_a_checkpoint_that_is_only_saved_has_no_prompt(check):
    graph = Graph()
    loader = graph.checkpoint()
    apply = graph.apply(loader)
    graph.add("CheckpointSave", model=[apply, 0], clip=[apply, 1], filename_prefix="checkpoints/anna")
    graph.sampler(loader, graph.text(loader, "a photo of a house"))
    assert said(check, graph) == []


def test_an_empty_prompt_counts_as_one_to_write_into(check):
    graph, _, apply, positive, _ = drawn("")
    [(node, text)] = said(check, graph)
    assert node == apply and f"(#{positive})" in text


def test_people_who_stand_ready_are_not_told_that_this_prompt_is_of_another(check):
    graph = Graph()
    last = loader = graph.checkpoint()
    for trigger in ("<anna>", "<ben>", "<cleo>"):
        last = graph.apply(last, trigger)
    negative = graph.text(loader, "ugly")  # the negative prompt may hang on the checkpoint's CLIP
    graph.sampler(last, graph.text(last, "a photo of <ben>"), negative)
    assert said(check, graph) == []
    graph.prompt[next(id for id, node in graph.prompt.items() if node["inputs"].get("text") == "a photo of <ben>")][
        "inputs"
    ]["text"] = "a photo of ben"
    assert {text.split(", but")[0].split(" says ")[-1] for _, text in said(check, graph)} >= {"ben"}


def test_a_node_that_is_switched_off_says_nothing(check):
    for off in ({"strength": 0.0}, {"strength": 0}, {"start_at": 1.0}, {"start_at": 0.5, "end_at": 0.5}):
        assert said(check, drawn("a photo of a woman", **off)[0]) == []


def test_a_trigger_is_the_nodes_own_before_the_identitys(check):
    assert said(check, drawn("a photo of <b>", own="<b>")[0]) == []
    [(_, text)] = said(check, drawn("a photo of <anna>", own="<b>")[0])
    assert "says <anna>" in text and "here it is <b>" in text


def test_the_trigger_is_followed_through_refit_merge_and_enhancer(check):
    for build, word in (
        (lambda graph: graph.add("IDEA_RefitIdentity", identity=[graph.person("<anna>"), 0], steps=25), "<anna>"),
        (
            lambda graph: graph.add("IDEA_MergeIdentities", identity_a=[graph.person("<a>"), 0], trigger="<both>"),
            "<both>",
        ),
        (lambda graph: graph.add("IDEA_IDEnhancer", names="celebrities", names_text="", enhancer_seed=0), "<id>"),
    ):
        for text, silent in ((f"a photo of {word}", True), ("a photo of a woman", False)):
            graph = Graph()
            apply = graph.apply(graph.checkpoint(), identity=build(graph))
            graph.sampler(apply, graph.text(apply, text))
            assert (said(check, graph) == []) is silent
            assert silent or word in said(check, graph)[0][1]


def test_a_trigger_that_comes_along_a_link_is_not_guessed(check):
    graph, _, apply, _, _ = drawn("a photo of a woman")
    assert len(said(check, graph)) == 1
    graph.prompt[apply]["inputs"]["trigger"] = [graph.add("PrimitiveStringMultiline", value="<anna>"), 0]
    assert said(check, graph) == []


def test_a_loaded_identity_answers_to_what_its_file_says_and_else_to_any_word_in_brackets(check):
    def loaded(text):
        graph = Graph()
        identity = graph.add("IDEA_LoadIdentity", identity="anna.safetensors", trigger="")
        apply = graph.apply(graph.checkpoint(), identity=identity)
        graph.sampler(apply, graph.text(apply, text))
        return graph

    assert said(check, loaded("a photo of <whoever>")) == []
    assert "a word in angle brackets" in said(check, loaded("a photo of a woman"))[0][1]
    assert (
        "Write <anna>, or"
        in said(check, loaded("a photo of <whoever>"), saved_trigger={"anna.safetensors": "<anna>"}.get)[0][1]
    )
    assert said(check, loaded("a photo of 安娜"), saved_trigger={"anna.safetensors": "安娜"}.get) == []


def test_a_loaded_identity_stands_ready_beside_one_without_brackets_too(check):
    graph = Graph()
    first = graph.apply(graph.checkpoint(), identity=graph.add("IDEA_LoadIdentity", identity="anna.pt", trigger=""))
    last = graph.apply(first, "sks7")
    graph.sampler(last, graph.text(last, "a photo of sks7"))
    assert said(check, graph) == []


def test_texts_that_are_known_only_when_they_have_run_are_not_judged(check):
    for text, inputs in (
        ("AskLanguageModel", {"prompt": "describe a woman", "temperature": 0.7}),
        ("Missing", {"a": "b", "c": "d"}),
    ):
        graph, _, _, positive, _ = drawn()
        source = graph.add(text, **inputs)
        graph.prompt[positive]["inputs"]["text"] = [source, 0]
        assert said(check, graph) == []
    assert said(check, drawn("a photo of __person__")[0]) == []


def test_a_text_that_a_primitive_hands_on_is_read(check):
    graph, _, apply, positive, _ = drawn()
    source = graph.add("PrimitiveStringMultiline", value="a photo of <anna>")
    graph.prompt[positive]["inputs"]["text"] = [source, 0]
    assert said(check, graph) == []
    graph.prompt[source]["inputs"]["value"] = "a photo of a woman"
    assert said(check, graph)[0][0] == apply


def test_links_are_followed_through_nodes_that_take_anything_bundles_and_subgraphs(check):
    graph = Graph()
    loader = graph.checkpoint()
    apply = graph.apply(loader)
    pipe = graph.add("ToPipe", model=[apply, 0], clip=[apply, 1])
    out = graph.add("FromPipe", pipe=[pipe, 0])
    switch = graph.add("AnySwitch", id="5:3", any_01=[out, 1])
    text = graph.text(switch, "a photo of <anna>", slot=0)
    graph.sampler(out, text)
    assert said(check, graph) == []
    graph.prompt[text]["inputs"]["text"] = "a photo of a woman"
    assert said(check, graph)[0][0] == apply
    graph.prompt["5:3"]["inputs"]["any_01"] = [loader, 1]
    graph.prompt[text]["inputs"]["text"] = "a photo of <anna>"
    assert f"(#{text}) mentions <anna>, but its clip comes from Any Switch (#5:3)" in said(check, graph)[0][1]


def test_nodes_that_nobody_knows_keep_it_silent(check):
    graph = Graph()
    apply = graph.apply(graph.checkpoint())
    graph.sampler(apply, graph.add("NotInstalled", x=[apply, 1], y="a photo of a woman"))
    assert said(check, graph) == []
    known = graph.apply(graph.checkpoint(), "<ben>")
    graph.add("ReadsAnything", clip=[known, 1])
    assert said(check, graph) == []


def test_graphs_that_a_host_would_refuse_raise_nothing(check):
    graph, _, apply, positive, sampler = drawn("a photo of a woman")
    graph.prompt[apply]["inputs"].update(model=[apply, 0], clip=[apply, 1], identity=["99", 0])
    assert said(check, graph) == []
    for broken in (
        {"1": {}},
        {"1": {"class_type": "IDEA_ApplyIDAdapter"}},
        {"1": {"class_type": "IDEA_ApplyIDAdapter", "inputs": {"clip": [1, 2, 3]}}},
    ):
        assert check.check_graph(broken, TYPES) == []
    switch = graph.add("AnySwitch", x=["20", 0])
    graph.add("AnySwitch", id="20", x=[switch, 0])
    assert check.check_graph(graph.prompt, TYPES) == []


def test_two_hundred_nodes_take_less_than_a_picture_would_notice(check):
    graph = Graph()
    last = graph.checkpoint()
    for number in range(20):
        last = graph.apply(last, f"<p{number}a>")
    while len(graph.prompt) < 200:
        text = graph.text(last, "a photo of <p1a> and <p2a> at sea, in the style of somebody")
        graph.sampler(last, text, graph.add("ConditioningCombine", a=[text, 0], b=[text, 0]))
    check.check_graph(graph.prompt, TYPES)
    start = time.process_time()
    for _ in range(5):
        check.check_graph(graph.prompt, TYPES)
    assert (time.process_time() - start) / 5 < 0.05


def test_mentions_are_found_before_a_node_only_and_named_by_the_text_node_that_reads_them(check):
    graph, _, apply, positive, sampler = drawn()
    source = graph.add("PrimitiveStringMultiline", value="<anna> at sea")
    second = graph.text(apply, "")
    graph.prompt[second]["inputs"]["text"] = [source, 0]
    combined = graph.add("ConditioningCombine", conditioning_1=[positive, 0], conditioning_2=[second, 0])
    graph.prompt[sampler]["inputs"]["positive"] = [combined, 0]
    other = graph.sampler(apply, graph.text(apply, "<annabel>"))
    assert check.mentions_in(graph.prompt, sampler, "<anna>", TYPES) == [positive, second]
    assert check.mentions_in(graph.prompt, sampler, "<anna>") == [positive, source]
    assert (
        check.mentions_in(graph.prompt, other, "<anna>", TYPES) == [] == check.mentions_in(graph.prompt, "99", "<anna>")
    )


def test_a_node_is_called_as_on_the_page_or_by_its_class(check):
    graph = {
        "6": {"class_type": "CLIPTextEncode", "inputs": {}},
        "5:3": {"class_type": "KSampler", "inputs": {}, "_meta": {"title": "First pass"}},
    }
    assert [check.text_title(graph, id) for id in ("6", "5:3")] == ["CLIP Text Encode (#6)", "First pass (#5:3)"]
