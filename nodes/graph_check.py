"""What a queued graph says about its prompts, read from the graph alone: who is mentioned where, and the commonest mistakes of wiring."""
from __future__ import annotations

import re
from typing import Any, Iterator, Mapping, Sequence

Graph = Mapping[str, Mapping[str, Any]]  # node id → {"class_type", "inputs"}: what a host runs ('API format')
Types = Mapping[str, Sequence[str]]  # class of a node → the types of its outputs
OURS = "IDEA_"
# A string that is the name of a model's file is no prompt.
_FILE = re.compile(r"[^\n]+\.(safetensors|sft|ckpt|pth?|bin|gguf|onnx|ya?ml|json|txt|png|jpe?g|webp)", re.IGNORECASE)


def text_title(graph: Graph, node_id: str) -> str:
    """'CLIP Text Encode (#6)': a node as its artist knows it."""
    node = graph.get(node_id, {})
    kind = str(node.get("class_type", "node"))
    # The page names its nodes beside what they are; a graph from elsewhere has only their class, 'CLIPTextEncode'.
    title = (node.get("_meta") or {}).get("title") or re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", kind.replace("_", " "))
    return f"{title} (#{node_id})"


def mentions_in(graph: Graph, node_id: str, trigger: str, types: Types | None = None) -> list[str]:
    """Ids of the text nodes before ``node_id``, along whatever links, that mention ``trigger``, in the graph's order.

    Args:
        types: with them a node that only hands a text on (a string primitive) stands for the text nodes that read it.
    """
    from ..idea_engine.tokens import trigger_pattern

    pattern = trigger_pattern([trigger])
    before = _before(graph, node_id)
    todo = [id for id in before if not _is_ours(graph, id) and any(pattern.search(text) for text in strings(graph, id))]
    seen, found = set(), set()
    while todo:
        one = todo.pop()
        if one in seen:
            continue
        seen.add(one)
        readers = [id for id in before if one in (source for source, _ in links(graph, id).values())]
        if readers and set((types or {}).get(str(graph[one].get("class_type")), ())) == {"STRING"}:
            todo += readers
        elif one != node_id:
            found.add(one)
    return [id for id in graph if id in found]


def strings(graph: Graph, node_id: str) -> Iterator[str]:
    """Every text that was typed into a node; names of files are none."""
    for value in (graph.get(node_id, {}).get("inputs") or {}).values():
        if isinstance(value, str) and value.strip() and not _FILE.fullmatch(value.strip()):
            yield value


def links(graph: Graph, node_id: str) -> dict[str, tuple[str, int]]:
    """Input name → (node, output) of a node's links to nodes that are in the graph."""
    inputs = graph.get(node_id, {}).get("inputs") or {}
    found = {name: (str(value[0]), value[1]) for name, value in inputs.items() if _is_link(value)}
    return {name: socket for name, socket in found.items() if socket[0] in graph}


def _is_link(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[0], (str, int)) and type(value[1]) is int


def _is_ours(graph: Graph, node_id: str) -> bool:
    return str(graph[node_id].get("class_type")).startswith(OURS)


def _before(graph: Graph, node_id: str) -> set[str]:
    """The node and all that it hangs on."""
    found: set[str] = set()
    todo = [node_id] if node_id in graph else []
    while todo:
        one = todo.pop()
        if one not in found:
            found.add(one)
            todo += [source for source, _ in links(graph, one).values()]
    return found
