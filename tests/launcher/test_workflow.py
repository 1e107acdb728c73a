"""Canvas workflows become the graph the server runs, with every value under its own name."""
import json

import pytest

from launcher.errors import WorkflowError
from launcher.example_workflow import EXAMPLES, number_of
from launcher.workflow import load_workflow, override, to_prompt, widget_values

SAMPLER = {"input": {"required": {
    "model": ["MODEL"], "seed": ["INT", {"default": 0}], "steps": ["INT", {"default": 20}], "sampler_name": [["euler", "ddim"]],
    "positive": ["CONDITIONING"], "denoise": ["FLOAT", {"default": 1.0}]}, "optional": {"note": ["STRING", {"default": "none"}]}}}
DECLARATIONS = {
    "Sampler": SAMPLER,
    "Loader": {"input": {"required": {"name": [["a", "b"]]}}},
    "Photo": {"input": {"required": {"image": [["x.png"], {"image_upload": True}], "size": ["INT", {}]}}},
    "Patch": {"input": {"required": {"model": ["MODEL"], "clip": ["CLIP"], "strength": ["FLOAT", {}]}}},
    "Text": {"input": {"required": {"text": ["STRING", {}], "forced": ["INT", {"forceInput": True}], "clip": ["CLIP"]}}},
}


def node(number, kind, inputs=(), outputs=(), values=(), mode=0, **more):
    return {"id": number, "type": kind, "mode": mode, "widgets_values": list(values) if not isinstance(values, dict) else values,
            "inputs": [{"name": name, "type": type_, "link": link, **({"widget": {"name": name}} if type_ in ("INT", "STRING") else {})}
                       for name, type_, link in inputs],
            "outputs": [{"name": type_, "type": type_} for type_ in outputs], **more}


def workflow(nodes, links):
    return {"nodes": nodes, "links": [[number, *link, "*"] for number, link in links.items()]}


@pytest.mark.parametrize("values, expected", [
    ([7, "randomize", 30, "ddim", 0.5, "hi"], {"seed": 7, "steps": 30, "sampler_name": "ddim", "denoise": 0.5, "note": "hi"}),
    ([7, 30, "ddim", 0.5, "hi"], {"seed": 7, "steps": 30, "sampler_name": "ddim", "denoise": 0.5, "note": "hi"}),
    ([7, "fixed", 30, "ddim", 0.5], {"seed": 7, "steps": 30, "sampler_name": "ddim", "denoise": 0.5, "note": "none"}),
    ({"seed": 7, "steps": 30}, {"seed": 7, "steps": 30}),
])
def test_widget_values_are_named_with_or_without_the_seed_control(values, expected):
    assert widget_values({"widgets_values": values}, SAMPLER) == expected


def test_the_upload_button_takes_a_value_of_its_own():
    assert widget_values({"widgets_values": ["x.png", "image", 512]}, DECLARATIONS["Photo"]) == {"image": "x.png", "size": 512}


def test_links_win_over_the_widget_they_were_made_from():
    graph = to_prompt(workflow([
        node(1, "Loader", outputs=["STRING"], values=["a"]),
        node(2, "Text", [("clip", "CLIP", None), ("text", "STRING", 5)], values=["typed"])], {5: (1, 0, 2, 1)}), DECLARATIONS)
    assert graph["2"] == {"class_type": "Text", "inputs": {"text": ["1", 0]}}


def test_reroutes_notes_and_primitives_dissolve():
    graph = to_prompt(workflow([
        node(1, "Loader", outputs=["MODEL"], values=["a"]), node(2, "Reroute", [("", "*", 1)], ["*"]), node(3, "Reroute", [("", "*", 2)], ["*"]),
        node(4, "PrimitiveNode", outputs=["INT"], values=[99, "fixed"]), node(5, "Note", values=["read me"]),
        node(6, "Sampler", [("model", "MODEL", 3), ("seed", "INT", 4)], values=[1, "fixed", 2, "euler", 1.0, ""])],
        {1: (1, 0, 2, 0), 2: (2, 0, 3, 0), 3: (3, 0, 6, 0), 4: (4, 0, 6, 1)}), DECLARATIONS)
    assert set(graph) == {"1", "6"}
    assert graph["6"]["inputs"]["model"] == ["1", 0] and graph["6"]["inputs"]["seed"] == 99


def test_a_bypassed_node_hands_on_its_input_of_the_same_type():
    graph = to_prompt(workflow([
        node(1, "Loader", outputs=["MODEL", "CLIP"], values=["a"]),
        node(2, "Patch", [("model", "MODEL", 1), ("clip", "CLIP", 2)], ["CLIP", "MODEL"], [1.0], mode=4),  # outputs in another order
        node(3, "Sampler", [("model", "MODEL", 3)], values=[]), node(4, "Text", [("clip", "CLIP", 4)], values=[""])],
        {1: (1, 0, 2, 0), 2: (1, 1, 2, 1), 3: (2, 1, 3, 0), 4: (2, 0, 4, 0)}), DECLARATIONS)
    assert graph["3"]["inputs"]["model"] == ["1", 0] and graph["4"]["inputs"]["clip"] == ["1", 1] and "2" not in graph


def test_a_muted_node_is_gone_and_so_is_what_it_fed():
    graph = to_prompt(workflow([node(1, "Loader", outputs=["MODEL"], values=["a"], mode=2),
                                node(2, "Sampler", [("model", "MODEL", 1)], values=[])], {1: (1, 0, 2, 0)}), DECLARATIONS)
    assert set(graph) == {"2"} and "model" not in graph["2"]["inputs"]


def test_a_node_the_host_lacks_is_named():
    with pytest.raises(WorkflowError, match="no node 'Missing'"):
        to_prompt(workflow([node(1, "Missing")], {}), DECLARATIONS)


def test_subgraphs_are_refused_with_a_way_out():
    with pytest.raises(WorkflowError, match="Export"):
        to_prompt({"nodes": [], "links": [], "definitions": {"subgraphs": [{}]}}, {})


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    with pytest.raises(WorkflowError, match="broken.json"):
        load_workflow(tmp_path / "broken.json", {})


def test_override_changes_a_copy():
    before = {"1": {"class_type": "Loader", "inputs": {"name": "a"}}}
    assert override(before, "Loader", name="b")["1"]["inputs"]["name"] == "b" and before["1"]["inputs"]["name"] == "a"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_links_of_the_example_workflows_agree_with_their_nodes(path):
    saved = json.loads(path.read_text(encoding="utf-8"))
    nodes = {node["id"]: node for node in saved["nodes"]}
    for number, source, slot, target, place, type_ in saved["links"]:
        assert number in nodes[source]["outputs"][slot]["links"] and nodes[source]["outputs"][slot]["type"] == type_
        assert nodes[target]["inputs"][place]["link"] == number


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_nothing_lies_on_top_of_anything_on_the_canvas_and_every_node_is_in_one_group(path):
    saved = json.loads(path.read_text(encoding="utf-8"))
    title = 32  # pixels above a node's position
    boxes = {node["id"]: (node["pos"][0], node["pos"][1] - title, node["pos"][0] + node["size"][0], node["pos"][1] + node["size"][1]) for node in saved["nodes"]}
    groups = [(x, y, x + width, y + height) for x, y, width, height in (group["bounding"] for group in saved["groups"])]
    numbers = sorted(boxes)
    assert [(a, b) for a in numbers for b in numbers if a < b and overlap(boxes[a], boxes[b])] == []
    assert [(a, b) for a in range(len(groups)) for b in range(a) if overlap(groups[a], groups[b])] == []
    for box in boxes.values():
        assert sum(g[0] <= box[0] and g[1] <= box[1] and box[2] <= g[2] and box[3] <= g[3] for g in groups) == 1, box


def overlap(one, other) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def test_the_workflows_are_numbered_without_a_gap_and_each_has_a_small_thumbnail():
    assert [number_of(path) for path in EXAMPLES] == list(range(len(EXAMPLES)))
    sizes = [path.with_suffix(".jpg").stat().st_size for path in EXAMPLES]
    assert all(0 < size <= 300_000 for size in sizes)
