"""Check Model in real hosts, on the demo model: three trainings of 20 steps, drawn, judged and said in words."""
import json
import re
from pathlib import Path

import pytest

from idea_engine.judging.base_advice import RATES, RateResult, advise, advised_rate
from idea_engine.training.base_check import PRESETS, PROMPTS
from launcher.errors import NodeFailedError
from live_trainings import cancel_when
from tiny_graphs import face_model, photographs

SENTENCE = r"fast: (its rate fits this model|its rate is too (hot|cold) for this model|no rate made the person)"


@pytest.fixture
def demo(graph):
    return graph.add("IDEA_LoadDemoModel")


@pytest.fixture
def person(host, graph, demo):
    """A face model, three photographs of one person, and their ID Enhancer; sockets."""
    model, photos = face_model(host, graph), photographs(graph, [[1, 0], [1, 1], [1, 2]])
    face = graph.add("IDEA_FaceEmbed", face_model=model, image=photos, choose="largest", index=0, on_missing="error")
    start = graph.add("IDEA_IDEnhancer", clip=demo[1], face=face[0], names="my list", names_text=demo[3])
    return model, photos, start[0]


def check(graph, demo, person, **settings):
    model, photos, start = person
    return graph.add(
        "IDEA_CheckModel", model=demo[0], clip=demo[1], vae=demo[2], enhanced=start, image=photos, face_model=model,
        **{"recipe": "fast", "resolution": 128, "keep_advice": False, "seed": 0, **settings},
    )


def without(graph, node):
    """The graph before this node, in which a sampler and the originals can be looked at."""
    return type(graph)({number: one for number, one in graph.prompt.items() if number != node.id})


def test_the_demo_model_is_checked_and_training_follows_what_is_kept(host, graph, demo, person):
    before = host.probe(graph, "state:originals", a=demo[0], b=demo[1])
    node = check(graph, demo, person)
    text = host.run(graph).outputs[node.id]["text"][0]
    said, *lines = text.splitlines()
    assert re.match(SENTENCE, said)
    figures = [re.match(r"fast × ([\d.]+): likeness (-?[\d.]+), prompt ([\d.]+), copies (\d+)%, faces (\d+)%$", line).groups() for line in lines[:3]]
    results = [RateResult(float(rate), float(likeness), float(prompt), int(copies) / 100, int(faces) / 100) for rate, likeness, prompt, copies, faces in figures]
    assert [one.rate for one in results] == list(RATES) and all(one.faces > 0 for one in results)
    assert lines[3:] == ["Likeness is judged by the face model that Face Embed used, which flatters every rate alike."]
    assert host.probe(graph, "artist:shape", a=node[0]) == [1, 4 + 4 * (192 + 22 + 4), 4 + (1 + PROMPTS) * 196, 3]  # a row of the photograph and one for each rate
    assert host.probe(without(graph, node), "state:originals", a=demo[0], b=demo[1]) == before

    graph.prompt[node.id]["inputs"]["keep_advice"] = True
    trained = []
    text = host.run(graph, on_message=lambda kind, data: trained.append(data) if kind == "idea.progress" else None).outputs[node.id]["text"][0]
    kept = Path(text.splitlines()[-1].removeprefix("Kept as "))
    try:
        assert not trained and text.splitlines()[0] == said  # it was not checked again
        advice = json.loads(kept.read_text(encoding="utf-8"))
        assert kept.parent == host.base.root / "models" / "idea" / "bases" and advice["width"] == 128 and advice["calibrated"] is True
        assert advice["recipes"]["fast"]["says"] == said and advised_rate([kept.parent], kept.stem, "fast") == advice["recipes"]["fast"]["rate"]
        tried = [RateResult(**one) for one in advice["recipes"]["fast"]["tried"]]
        assert advise("fast", tried).rate == advice["recipes"]["fast"]["rate"]
        assert len(advice["base"]) == 16 and "data:" not in kept.read_text(encoding="utf-8") and kept.stat().st_size < 3000
        advice["recipes"]["fast"]["rate"] = 2.0
        kept.write_text(json.dumps(advice), encoding="utf-8")
        training, (_, photos, start) = without(graph, node), person  # the check would keep its own once more
        follows = training.add(
            "IDEA_TrainIDEA", model=demo[0], clip=demo[1], vae=demo[2], image=photos, enhanced=start, trigger="<anna>", recipe="fast", steps=1, batch=1, lr=0.0,
            resolution=128, seed=5,
        )
        assert "at 2 times the recipe's rate, as a check of this base model advises" in host.run(training).outputs[follows.id]["text"][0]
    finally:
        kept.unlink()


def test_a_cancelled_check_leaves_the_models_as_they_were(host, graph, demo, person):
    before = host.probe(graph, "state:originals", a=demo[0], b=demo[1])
    node = check(graph, demo, person, seed=1, keep_advice=True)
    seen = cancel_when(host, graph, lambda step: step >= 22)  # in the second of three trainings
    assert seen and all(message["steps"] == 60 for message in seen)
    assert host.probe(without(graph, node), "state:originals", a=demo[0], b=demo[1]) == before
    assert not list((host.base.root / "models" / "idea").glob("bases/*.json"))


@pytest.mark.one_host
def test_what_cannot_be_trained_is_said_before_anything_is_drawn(host, graph, demo, person):
    check(graph, demo, person, resolution=32)
    with pytest.raises(NodeFailedError, match="expected a multiple of 8 from 64 on"):
        host.run(graph)


@pytest.mark.one_host
def test_every_recipe_with_a_rate_of_ours_can_be_checked(host):
    choices = host.client.object_info()["IDEA_CheckModel"]["input"]["required"]["recipe"]
    assert sorted(choices[0]) == sorted(PRESETS) and choices[1]["default"] == "fast"
