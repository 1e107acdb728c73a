"""Refit Identity in real hosts: shown, stopped, gone on with and kept like any training."""
import json

import pytest

from live_trainings import ask, cancel_when, run_and_stop
from tiny_graphs import apply, enhanced, probe, random_identity, sample, tiny

pytestmark = pytest.mark.one_host


@pytest.fixture
def refit(graph):
    """A refit of somebody of SD 1.x on SDXL, and the new MODEL, CLIP, VAE; made by settings."""
    person = random_identity(graph, tiny(graph, "sd1"))
    new = tiny(graph, "sdxl")
    photo = graph.add("EmptyImage", width=64, height=64, batch_size=1, color=0x4080C0)

    def make(into=graph, **settings):
        node = into.add(
            "IDEA_RefitIdentity", identity=person[0], model=new[0], clip=new[1], vae=new[2], enhanced=enhanced(into, new[1])[0],
            **{"image": photo[0], "steps": 4, "resolution": 64, "seed": 0, **settings},
        )
        return node, new

    return make


def test_the_same_inputs_are_refitted_once_even_after_a_restart(host, graph, refit):
    node, _ = refit(seed=81)
    assert "earlier" not in host.run(graph).outputs[node.id]["text"][0]
    first, described = (host.probe(graph, probe, a=node[0]) for probe in ("identities:digest", "artist:described"))
    host.client.free()
    text = host.run(graph).outputs[node.id]["text"][0]
    assert "from Stable Diffusion 1.x" in text and "in 4 steps; taken from an earlier training" in text
    again = [host.probe(graph, probe, a=node[0]) for probe in ("identities:digest", "artist:described")]
    assert again == [first, described] and described["config"]["refitted_from"]["family"] == "sd1"
    with host.another_process() as other:
        assert "earlier training" in other.run(graph).outputs[node.id]["text"][0]


def test_stop_gives_the_person_so_far_and_the_next_queue_goes_on(host, graph, refit):
    node, new = refit(seed=82, steps=2000)
    on = apply(graph, new[0], new[1], node[0])
    drawn, plain = sample(graph, on[0], on[1]), sample(graph, new[0], new[1])
    compared = probe(graph, "state:compare", a=drawn[0], b=plain[0])
    outputs, states, late, answers = run_and_stop(host, graph, node)
    assert "ended by Stop" in outputs[node.id]["text"][0] and answers == [{"stopping": True}] and states[-1] == "stopped"
    assert [one["progress"]["node"] for one in late] == [node.id] and ask(host, "/idea/training") == []
    assert json.loads(outputs[compared.id]["text"][0]) > 1e-4  # the graph went on, and somebody is in the picture
    assert cancel_when(host, graph, lambda step: step >= 1)[0]["step"] > 1  # the tiny models are made anew, so the node runs again


def test_a_cancelled_refit_goes_on_to_the_very_same_person(host, graph, refit):
    bare = dict(graph.prompt)
    node, _ = refit(seed=83, steps=24)
    cancel_when(host, graph, lambda step: step >= 2)
    assert "resumed at step" in host.run(graph).outputs[node.id]["text"][0]
    resumed = host.probe(graph, "identities:digest", a=node[0])
    assert host.probe(type(graph)(), "identities:forget_trainings") > 0
    host.client.free()
    whole = type(graph)(bare)
    fresh, _ = refit(whole, seed=83, steps=24)
    text = host.run(whole).outputs[fresh.id]["text"][0]
    assert "earlier" not in text and "resumed" not in text
    assert host.probe(whole, "identities:digest", a=fresh[0]) == resumed


def test_previews_of_a_refit_are_shown_and_judged(host, graph, refit):
    judge = graph.add("IDEA_LoadFaceModel", pack="Portrait World (demo)", provider="CPU", detection_size=320)
    photo = probe(graph, "artist:photographs", {"shots": [[0, 0]]})
    node, _ = refit(seed=84, preview_every=2, face_model=judge[0], image=photo[0])
    seen = []
    text = host.run(graph, on_message=lambda kind, data: seen.append(data) if kind == "idea.preview" else None).outputs[node.id]["text"][0]
    assert [one["step"] for one in seen] == [2, 4] and all(isinstance(one["likeness"], float) for one in seen)
    assert "best at step" in text
