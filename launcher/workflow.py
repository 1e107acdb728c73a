"""A workflow as ComfyUI's canvas saves it, turned into the graph its server runs ('API format').

The canvas keeps widget values as a bare list in the order the widgets were made, so the node declarations of the host
(`Client.object_info()`) are needed to name them.
"""
import copy
import json
from pathlib import Path

from .errors import WorkflowError

MUTED, BYPASSED = 2, 4
ONLY_ON_CANVAS = ("Note", "MarkdownNote")
WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
AFTER_GENERATE = ("fixed", "increment", "decrement", "randomize")  # the extra widget the canvas puts below a seed


def load_workflow(path: Path, object_info: dict) -> dict:
    """Read a workflow file and return its graph. Raises WorkflowError."""
    try:
        return to_prompt(json.loads(path.read_text(encoding="utf-8")), object_info)
    except (OSError, ValueError) as error:
        raise WorkflowError(f"{path} cannot be read as a workflow: {error}") from error


def to_prompt(workflow: dict, object_info: dict) -> dict:
    """Return `{node id: {"class_type", "inputs"}}` for a workflow in canvas format.

    Muted nodes are left out, bypassed ones hand their input through, reroutes and primitives dissolve.
    Raises WorkflowError for node types this host lacks and for subgraphs.
    """
    if workflow.get("definitions", {}).get("subgraphs"):
        raise WorkflowError("The workflow has subgraphs, which only the browser can unfold. Save it from the browser with 'Export (API)'.")
    nodes = {node["id"]: node for node in workflow["nodes"]}
    links = {link[0]: (link[1], link[2]) for link in workflow["links"] if link}
    prompt = {}
    for node in nodes.values():
        if node.get("mode", 0) in (MUTED, BYPASSED) or node["type"] in (*ONLY_ON_CANVAS, "Reroute", "PrimitiveNode"):
            continue
        if node["type"] not in object_info:
            raise WorkflowError(f"This host has no node '{node['type']}'. Install the node pack it comes from, or read the host's log "
                                "for why that pack did not load.")
        inputs = widget_values(node, object_info[node["type"]])
        for slot in node.get("inputs") or []:
            if slot.get("link") is None:
                continue
            origin = _origin(slot["link"], slot.get("type"), nodes, links)
            if origin is not None:
                inputs[slot["name"]] = origin[0] if isinstance(origin, tuple) else origin
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def override(prompt: dict, class_type: str, **inputs) -> dict:
    """Return a copy of a graph in which every node of one type has these inputs."""
    changed = copy.deepcopy(prompt)
    for node in changed.values():
        if node["class_type"] == class_type:
            node["inputs"].update(inputs)
    return changed


def widget_values(node: dict, declaration: dict) -> dict:
    """Name the values in a node's `widgets_values`. A value that is missing at the end takes the declared default."""
    values = node.get("widgets_values") or []
    if isinstance(values, dict):
        return {name: values[name] for name, _, _ in _widgets(declaration) if name in values}
    named, rest = {}, list(values)
    for name, kind, options in _widgets(declaration):
        if rest:
            named[name] = rest.pop(0)
        elif "default" in options:
            named[name] = options["default"]
        if rest and rest[0] in AFTER_GENERATE and kind == "INT" and (name in ("seed", "noise_seed") or options.get("control_after_generate")):
            rest.pop(0)
        if rest and any(options.get(f"{media}_upload") for media in ("image", "video", "audio")):
            rest.pop(0)  # the upload button counts as a widget
    return named


def _widgets(declaration: dict):
    """Yield name, type and options of the inputs that the canvas draws as widgets, in its order."""
    for group in ("required", "optional"):
        for name, specification in (declaration["input"].get(group) or {}).items():
            kind = specification[0]
            options = specification[1] if len(specification) > 1 and isinstance(specification[1], dict) else {}
            if (isinstance(kind, list) or kind in WIDGET_TYPES) and not options.get("forceInput"):
                yield name, "COMBO" if isinstance(kind, list) else kind, options


def _origin(link: int, wanted: str | None, nodes: dict, links: dict):
    """Follow a link upstream: `[node id, slot]` of a node that runs, `(value,)` of a primitive, None if it ends nowhere."""
    seen = set()
    while link is not None and link in links and link not in seen:
        seen.add(link)
        node_id, slot = links[link]
        node = nodes.get(node_id)
        if node is None or node.get("mode", 0) == MUTED:
            return None
        if node["type"] == "PrimitiveNode":
            return (node["widgets_values"][0],)
        if node["type"] == "Reroute":
            link = node["inputs"][0].get("link")
        elif node.get("mode", 0) == BYPASSED:
            link = _passed_through(node, slot, wanted)
        else:
            return [str(node_id), slot]
    return None


def _passed_through(node: dict, slot: int, wanted: str | None) -> int | None:
    """Return the link that a bypassed node hands on at an output: its input of the same type, the same place first."""
    output = (node.get("outputs") or [{}])[slot].get("type", wanted)
    inputs = node.get("inputs") or []
    same_place = inputs[slot:slot + 1]
    for candidate in (*same_place, *inputs):
        if candidate.get("type") == output and not candidate.get("widget"):
            return candidate.get("link")
    return None
