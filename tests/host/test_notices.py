"""Wrong graphs, queued as a page does: a sentence reaches that page and the log, and the run goes on as it would."""
import json

import pytest

from launcher.example_workflow import EXAMPLES
from launcher.workflow import load_workflow
from tiny_graphs import apply, enhanced, probe, random_identity, sample, tiny


def queued(host, graph):
    """The notices that a page gets while its graph runs, without those that only take old ones away."""
    told = []
    finished = host.run(graph, on_message=lambda kind, data: told.append(data) if kind == "idea.notice" else None)
    return [(data["node"], data["type"], data["text"]) for data in told if data["node"] is not None], finished


def demo(graph):
    """The demo model with an untrained person, `<id>`, on it: loader and Apply node."""
    loader = graph.add("IDEA_LoadDemoModel")
    return loader, apply(graph, loader[0], loader[1], enhanced(graph, loader[1])[0], trigger="")


def test_every_common_mistake_is_told_on_the_node_and_in_the_log_and_the_picture_is_made(host, graph):
    loader, person = demo(graph)
    wrong = {
        "says <ID>, but the person answers to <id>": sample(graph, person[0], person[1], "a photo of <ID>", steps=1),
        "mentions <id>, but its clip comes from": sample(graph, person[0], loader[1], "a photo of <id>", steps=1),
        "draws a prompt that mentions <id>, but its model comes from": sample(
            graph, loader[0], person[1], "a photo of <id>", steps=1
        ),
        "says <bob>, but nobody before it answers to that": sample(
            graph, person[0], person[1], "a photo of <bob>", steps=1
        ),
    }
    for latent in wrong.values():
        graph.add("SaveLatent", samples=latent[0], filename_prefix="notices")
    log = len(host.process.log_text())
    told, _ = queued(host, graph)
    assert {(node, kind) for node, kind, _ in told} == {(person.id, "IDEA_ApplyIDAdapter")} and len(told) == len(wrong)
    lines = host.process.log_text()[log:]
    for sentence in wrong:
        assert sum(sentence in text for _, _, text in told) == 1 and sentence in lines, sentence


def test_a_right_graph_hears_nothing_but_to_forget_what_was_said(host, graph):
    _, person = demo(graph)
    latent = sample(graph, person[0], person[1], "a photo of a house", steps=1)
    graph.add("SaveLatent", samples=latent[0], filename_prefix="notices")
    assert [node for node, _, _ in queued(host, graph)[0]] == [person.id]
    for node in graph.prompt.values():
        if node["inputs"].get("text") == "a photo of a house":
            node["inputs"]["text"] = "a photo of <id>"
    told = []
    host.run(graph, on_message=lambda kind, data: told.append(data) if kind == "idea.notice" else None)
    assert told == [{"node": None, "text": ""}]


def test_the_trigger_of_a_saved_identity_is_read_from_its_file(host, graph):
    loader = tiny(graph)
    graph.add(
        "IDEA_SaveIdentity",
        identity=random_identity(graph, loader, trigger="<ben>")[0],
        filename="notices",
        consent="",
        store_face=False,
    )
    host.run(graph)
    second = type(graph)()
    loader = second.add("IDEA_LoadDemoModel")
    loaded = second.add("IDEA_LoadIdentity", identity="notices.safetensors", trigger="")
    person = apply(second, loader[0], loader[1], loaded[0])
    latent = sample(second, person[0], person[1], "a photo of <anna>", steps=1)
    second.add("SaveLatent", samples=latent[0], filename_prefix="notices")
    told = []
    with pytest.raises(Exception):  # an identity of another model: what is said comes before that
        host.run(second, on_message=lambda kind, data: told.append(data) if kind == "idea.notice" else None)
    assert (
        "says <anna>, but nobody before it answers to that; here it is <ben>"
        in [data["text"] for data in told if data["node"] == person.id][0]
    )


def test_no_example_workflow_hears_a_word_with_the_nodes_of_this_host(host, graph):
    prompts = [load_workflow(path, host.client.object_info()) for path in EXAMPLES]
    assert sum("IDEA_ApplyIDAdapter" in str(prompt) for prompt in prompts) == 9
    assert host.probe(graph, "notices:about", {"prompts": prompts}) == [[]] * len(EXAMPLES)


def test_a_running_node_knows_its_prompt_and_says_a_sentence_once_for_each(host, graph):
    speaking = probe(graph, "notices:speak", {"node": "1", "text": "a sentence"})
    for _ in range(2):  # a new queue speaks again
        told, finished = queued(host, graph)
        assert told == [("1", "ProbeRun", "a sentence")]
        answer = json.loads(finished.outputs[speaking.id]["text"][0])
        assert answer == {"node": speaking.id, "prompt": finished.prompt_id, "graph": {"1": "ProbeRun"}}


def test_without_a_queue_nothing_runs(host, graph):
    assert host.probe(graph, "notices:before_any_prompt") == [True, True, True]


def test_a_graph_that_cannot_be_read_is_refused_by_the_host_and_by_nobody_else(host, graph):
    for prompt in (
        {"1": "no node"},
        {
            "1": {
                "class_type": "IDEA_ApplyIDAdapter",
                "inputs": {"clip": ["1", 1], "model": ["1", 0], "identity": ["7", 0]},
            }
        },
    ):
        with pytest.raises(Exception) as refused:
            host.client.submit(prompt)
        assert not isinstance(refused.value, AssertionError)
    _, person = demo(graph)
    latent = sample(graph, person[0], person[1], "a photo of <id>", steps=1)
    graph.add("SaveLatent", samples=latent[0], filename_prefix="notices")
    assert queued(host, graph)[0] == []  # and it still reads the next
