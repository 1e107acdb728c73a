"""Photographs that a host passes as a list, as folder loaders do: one person for every node that is about one."""
import json

import pytest

from launcher.errors import NodeFailedError
from tiny_graphs import enhanced, face_model, photographs, probe, tiny, train


def listed(graph, pictures, **arguments):
    """The pictures of a batch as a list, on output 0; texts on output 1."""
    return graph.add("ProbeLists", function="artist:listed", arguments=json.dumps(arguments), a=pictures)


def embed(graph, model, pictures):
    return graph.add("IDEA_FaceEmbed", face_model=model, image=pictures, choose="largest", index=0, on_missing="error")


def test_a_list_is_the_same_person_as_a_batch(host, graph):
    """Through the doctor, Face Embed and a training: the same faces, the same masks, the same identity, learned once."""
    model, loader = face_model(host, graph), tiny(graph)
    batch = photographs(graph, [[0, 0], [0, 1], [0, 2]])
    start, learned = enhanced(graph, loader[1])[0], []
    for pictures in (batch, listed(graph, batch)[0]):
        doctor = graph.add("IDEA_ReferenceDoctor", face_model=model, image=pictures, keep="usable")
        face = embed(graph, model, doctor[2])
        trained = train(graph, loader, doctor[2], start, masks=face[2], seed=181)
        learned.append((doctor, face, trained))
    (one, plain, first), (two, many, second) = learned
    digests = [host.probe(graph, "basics:digest", a=one[slot], b=two[slot]) for slot in (0, 2, 4, 5)]
    digests += [host.probe(graph, "basics:digest", a=plain[slot], b=many[slot]) for slot in (1, 2, 3)]
    assert all(found["a"] == found["b"] for found in digests)
    vectors = [host.probe(graph, "faces:describe", a=face[0]) for face in (plain, many)]
    assert vectors[0]["faces"] == 3 and vectors[0] == vectors[1]
    assert host.probe(graph, "identities:digest", a=first[0]) == host.probe(graph, "identities:digest", a=second[0])


def test_a_list_runs_each_node_once(host, graph):
    """Before, each photograph of a list was a training of its own, and the last one stayed."""
    model, loader = face_model(host, graph), tiny(graph)
    pictures = listed(graph, photographs(graph, [[0, 0], [0, 1], [0, 2]]))
    trained = train(graph, loader, pictures[0], enhanced(graph, loader[1])[0], seed=182)
    score = graph.add("IDEA_IdentityScore", face_model=model, image=pictures[0], references=pictures[0], threshold=0.5)
    ran = host.run(graph)
    assert len(ran.outputs[trained.id]["text"]) == 1
    said, = ran.outputs[score.id]["text"]
    assert "of 3 pictures accepted" in said


def test_photographs_of_different_sizes_are_one_person(host, graph):
    model, loader = face_model(host, graph), tiny(graph)
    sizes = [[256, 256], [240, 256], [256, 224]]
    pictures = listed(graph, photographs(graph, [[0, 0], [0, 1], [0, 2]]), sizes=sizes, texts=["smiling", "", "in a forest"])
    doctor = graph.add("IDEA_ReferenceDoctor", face_model=model, image=pictures[0], keep="usable")
    text, = host.run(graph).outputs[doctor.id]["text"]
    assert "3 of 3 photographs are passed on" in text
    face = host.probe(graph, "faces:describe", a=doctor[3])
    assert face["faces"] == 3
    start = graph.add("IDEA_IDEnhancer", face=doctor[3], clip=loader[1], names="words", names_text="human face", enhancer_seed=0)
    learned = train(graph, loader, doctor[2], start[0], masks=doctor[5], caption=pictures[1], recipe="balanced", seed=183)
    config = host.probe(graph, "artist:described", a=learned[0])["config"]
    assert len(config["losses"]) == 3 and config["captions"] == ["smiling", "", "in a forest"]
    shown = graph.add("PreviewImage", images=doctor[2])
    assert len(host.run(graph).outputs[shown.id]["images"]) == 3


def test_several_recipes_in_a_list_are_a_sentence(host, graph):
    loader = tiny(graph)
    texts = listed(graph, graph.add("EmptyImage", width=64, height=64, batch_size=1, color=0)[0], texts=["<anna>", "<ben>"])
    trained = train(graph, loader, graph.add("EmptyImage", width=64, height=64, batch_size=1, color=0)[0], enhanced(graph, loader[1])[0], trigger=texts[1])
    with pytest.raises(NodeFailedError, match="Train Identity got a list of 2 different values for trigger"):
        host.probe(graph, "identities:digest", a=trained[0])


@pytest.mark.one_host
def test_the_doctor_leaves_out_what_is_connected_also_for_lists(host, graph):
    pictures = listed(graph, photographs(graph, [[0, 0], [0, 1]], blank=[0, 1]), sizes=[[256, 256], [240, 256]])
    doctor = graph.add("IDEA_ReferenceDoctor", face_model=face_model(host, graph), image=pictures[0], keep="usable")
    sheet = graph.add("PreviewImage", images=doctor[0])
    stopped = [probe(graph, "basics:loaded", a=doctor[slot]).id for slot in (2, 3, 4, 5)]
    ran = host.run(graph)
    assert sheet.id in ran.outputs and not set(stopped) & set(ran.outputs)
