"""ID Enhancer with an enhancer learned from many people: photographs become a person at once, in real hosts as in the engine."""
import json
from dataclasses import replace

import pytest
import torch

from idea_engine.enhancer.file import EnhancerNotes, save_enhancer, text_reading
from idea_engine.enhancer.network import Enhancer, EnhancerSizes
from launcher.client import Client
from launcher.errors import NodeFailedError, PromptRejectedError
from launcher.example_workflow import DEMO_PACK
from tiny_graphs import apply, face_model, photographs, probe, sample, tiny


@pytest.fixture(scope="module")
def world():
    """The Portrait World as the engine sees it, and its recognizer."""
    from portrait_world.judging.likeness import face_model as world_pack
    from portrait_world.trials.trial import anchor_of_names, open_backend

    return open_backend(), anchor_of_names(open_backend()), world_pack().recognizer


@pytest.fixture
def made(host, world):
    """Writes an enhancer with made-up weights into models/idea/enhancers; the files are gone afterwards."""
    backend, anchor, recognizer = world
    folder, written = host.base.root / "models" / "idea" / "enhancers", []

    def write(name, **changes):
        joined = backend.family.join(anchor.rows)
        torch.manual_seed(4)
        network = Enhancer(EnhancerSizes(joined.shape[1], len(backend.block_widths), hidden=32, rank=4, head=8, names=2), joined, joined)
        with torch.no_grad():
            for key, parameter in network.named_parameters():
                if key.startswith(("ending", "up_")):
                    parameter.normal_(std=0.1)
        notes = EnhancerNotes(backend.family.name, dict(backend.family.encoders), recognizer, "for tests")
        written.append(save_enhancer(network, replace(notes, **changes), text_reading(backend), folder / f"{name}.safetensors"))
        return written[-1].name

    yield write
    for path in written:
        path.unlink()


def person(graph, demo, photo=None, **settings):
    """FaceEmbed → IDEnhancer on the demo model: the enhancer node."""
    faces = graph.add("IDEA_LoadFaceModel", pack=DEMO_PACK, provider="CPU", detection_size=320)
    face = graph.add("IDEA_FaceEmbed", face_model=faces[0], image=photo or demo[4], choose="largest", index=0, on_missing="error")
    return graph.add("IDEA_IDEnhancer", face=face[0], clip=demo[1], names="my list", names_text=demo[3], enhancer_seed=0, **settings)


def drawn(graph, demo, node):
    applied = apply(graph, demo[0], demo[1], node[0], trigger="<anna>")
    return sample(graph, applied[0], applied[1], "a photo of <anna> on a beach", size=(128, 128))


def digests(host, graph, *nodes):
    return list(host.probe(graph, "basics:digest", **dict(zip("abcd", (node[0] for node in nodes)))).values())


def test_a_photograph_is_drawn_with_nothing_trained_and_automatic_finds_the_file(host, graph, made):
    name, demo = made("aaa"), graph.add("IDEA_LoadDemoModel")
    named, automatic, silent, names = (person(graph, demo, **given) for given in ({"enhancer": name}, {"enhancer": "automatic"}, {}, {"enhancer": "names only"}))
    pictures = zip("abcd", (drawn(graph, demo, node)[0] for node in (named, automatic, silent, names)))
    shown = probe(graph, "basics:digest", **dict(pictures))
    said = host.run(graph).outputs
    digest = json.loads(said[shown.id]["text"][0])
    assert digest["a"] == digest["b"] == digest["c"] != digest["d"]
    assert "Read by the enhancer aaa" in said[automatic.id]["text"][0] and "Names only" in said[names.id]["text"][0]
    listed = Client(host.client.address).object_info()["IDEA_IDEnhancer"]["input"]["optional"]["enhancer"][0]
    assert listed[:3] == ["automatic", "names only", name]


def test_the_host_reads_the_same_person_as_the_engine(host, graph, made, world):
    import numpy
    from PIL import Image

    from idea_engine.enhancer.file import load_enhancer
    from idea_engine.enhancer.person import person_at_once
    from idea_engine.faces.embed import embed_faces
    from idea_engine.identity.operations import named_tensors
    from launcher.portrait import PHOTO
    from portrait_world.judging.likeness import face_model as world_pack

    name, demo, (backend, anchor, _) = made("aaa"), graph.add("IDEA_LoadDemoModel"), world
    picture = torch.from_numpy(numpy.asarray(Image.open(PHOTO).convert("RGB"), dtype=numpy.float32) / 255)
    file = load_enhancer(host.base.root / "models" / "idea" / "enhancers" / name)
    expected = person_at_once(file, backend, embed_faces(world_pack(), [picture]), anchor)
    sizes = {key: [float(tensor.float().norm()), float(tensor.float().sum())] for key, tensor in named_tensors(replace(expected, face=None)).items()}
    found = host.probe(graph, "identities:sizes", a=person(graph, demo, enhancer=name)[0])
    assert found.keys() == sizes.keys()
    for key, (norm, total) in sizes.items():
        assert found[key] == pytest.approx([norm, total], rel=0.02, abs=0.02 * norm), key


@pytest.mark.one_host
def test_the_person_at_once_is_refined_saved_and_merged(host, graph, made):
    made("aaa")
    demo = graph.add("IDEA_LoadDemoModel")
    first = person(graph, demo)
    trained = graph.add(
        "IDEA_TrainIDEA", model=demo[0], clip=demo[1], vae=demo[2], image=demo[4], enhanced=first[0], trigger="<anna>", recipe="fast", steps=2, batch=2,
        lr=0.0, resolution=128, seed=0,
    )
    second = person(graph, demo, photographs(graph, [[3, 0]]))
    merged = graph.add("IDEA_MergeIdentities", identity_a=first[0], weight_a=0.5, identity_b=second[0], weight_b=0.5, trigger="<both>")
    graph.add("IDEA_SaveIdentity", identity=first[0], filename="at-once")
    refined = host.probe(graph, "identities:distances", a=first[0], b=trained[0], c=second[0])
    assert 0 < refined["ab"] < refined["ac"]
    apart = host.probe(graph, "identities:distances", a=first[0], b=second[0], c=merged[0])
    assert 0 < apart["ac"] < apart["ab"]  # between the two; merging keeps the size of what it averages
    saved = graph.add("IDEA_LoadIdentity", identity="at-once.safetensors")
    host.run(graph)
    assert host.probe(graph, "identities:distances", a=first[0], b=saved[0], c=merged[0])["ab"] == 0
    assert not any(entry.startswith("enhancers/") for entry in Client(host.client.address).object_info()["IDEA_LoadIdentity"]["input"]["required"]["identity"][0])


def test_files_that_do_not_fit_are_refused_in_words_or_passed_over(host, graph, made):
    other, demo = made("aaa-other", recognizer="w600k_r50:1a2b3c4d"), graph.add("IDEA_LoadDemoModel")
    (host.base.root / "models" / "idea" / "enhancers" / "aab-broken.safetensors").write_bytes(b"no file at all")
    try:
        with pytest.raises(NodeFailedError, match="reads faces as the recognizer w600k_r50:1a2b3c4d measures them, but Face Embed used rec_portrait"):
            host.probe(graph, "identities:sizes", a=person(graph, demo, enhancer=other)[0])
        with pytest.raises((PromptRejectedError, NodeFailedError), match="There is no enhancer gone.safetensors"):
            host.probe(graph, "identities:sizes", a=person(graph, demo, enhancer="gone.safetensors")[0])
        host.probe(graph, "identities:sizes", a=person(graph, demo)[0])  # automatic goes on without either
    finally:
        (host.base.root / "models" / "idea" / "enhancers" / "aab-broken.safetensors").unlink()


def test_where_no_file_fits_a_graph_of_yesterday_does_what_it_did(host, graph):
    loader = tiny(graph)
    face = graph.add("IDEA_FaceEmbed", face_model=face_model(host, graph), image=photographs(graph, [[3, 0]]), choose="largest", index=0, on_missing="error")
    words = dict(clip=loader[1], face=face[0], names="words", names_text="human face", enhancer_seed=0)
    yesterday, names = graph.add("IDEA_IDEnhancer", **words), graph.add("IDEA_IDEnhancer", **words, enhancer="names only")
    pictures = []
    for node in (yesterday, names):
        applied = apply(graph, loader[0], loader[1], node[0], trigger="<anna>")
        pictures.append(sample(graph, applied[0], applied[1]))
    one, other = digests(host, graph, *pictures)
    assert one == other
