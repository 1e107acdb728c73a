"""What a node has to say without failing the run: one line in the log, and a sentence on the node in the pages that show the graph."""
from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from typing import Any, Mapping

from .live import host_server

EVENT = "idea.notice"
_said: set[tuple[str | None, str]] = set()
_said_in: list[str | None] = [None]  # the prompt that `_said` belongs to


@dataclass(frozen=True)
class RunningPrompt:
    """What the host draws now.

    Attributes: graph: node id → {"class_type", "inputs"}, the API format, as it was queued; node_id: of the node that runs now, as the graph
    knows it, or None where the host does not tell; prompt_id: the host's own, another for every queued prompt.
    """

    graph: Mapping[str, Mapping[str, Any]]
    node_id: str | None
    prompt_id: str


def notify(node_id: str | None, text: str) -> None:
    """Say ``text`` on a node, once for each queued prompt; without a node only the log has it. Never raises."""
    now = running()
    prompt_id = now.prompt_id if now is not None else None
    if prompt_id is None or prompt_id != _said_in[0]:  # outside of a prompt nothing tells one time from another, so all is said
        _said.clear()
        _said_in[0] = prompt_id
    if (node_id, text) in _said:
        return
    _said.add((node_id, text))
    graph = now.graph if now is not None else {}
    say(node_id, text, graph, getattr(host_server(), "client_id", None))


def say(node_id: str | None, text: str, graph: Mapping[str, Mapping[str, Any]], client: str | None) -> None:
    """Say ``text`` on a node of ``graph`` now, however often it was said.

    Args:
        client: the page that queued the graph; None for every open page.
    """
    logging.warning("ID-EA, node %s: %s" if node_id is not None else "ID-EA: %s%s", node_id or "", text)
    if node_id is not None:
        _send({"node": node_id, "type": graph.get(node_id, {}).get("class_type"), "text": text}, client)


def forget(client: str | None) -> None:
    """Take every sentence off the nodes: another prompt was queued."""
    _send({"node": None, "text": ""}, client)


def running() -> RunningPrompt | None:
    """The prompt that runs now and its node; None outside of a run, and on hosts that do not tell."""
    server = host_server()
    context = _executing()
    for item in _current(server):
        if not (isinstance(item, (tuple, list)) and len(item) > 2 and isinstance(item[2], Mapping)):
            continue
        prompt_id, graph = str(item[1]), item[2]
        if context is not None and context.prompt_id != prompt_id:
            continue
        node = context.node_id if context is not None else getattr(server, "last_node_id", None)
        return RunningPrompt(graph, _known(graph, node), prompt_id)
    return None


def output_types() -> dict[str, tuple[str, ...]]:
    """Class of a node → the types of its outputs, of all nodes of this host."""
    mappings = getattr(sys.modules.get("nodes"), "NODE_CLASS_MAPPINGS", None) or {}
    found = {}
    for name, kind in list(mappings.items()):
        types = getattr(kind, "RETURN_TYPES", None)
        if isinstance(types, (tuple, list)):
            found[name] = tuple(str(one) for one in types)
    return found


def _send(message: Mapping[str, Any], client: str | None) -> None:
    server = host_server()
    if server is not None:
        server.send_sync(EVENT, dict(message), client)


def _executing() -> Any:
    """The host's own note of prompt and node, where it keeps one; read, never imported."""
    ask = getattr(sys.modules.get("comfy_execution.utils"), "get_executing_context", None)
    context = ask() if ask is not None else None
    return context if hasattr(context, "prompt_id") and hasattr(context, "node_id") else None


def _current(server: Any) -> list:
    """The queue's items that run now: (number, prompt id, graph, …). The ordinary question copies all that waits, so the cheaper one is first."""
    queue = getattr(server, "prompt_queue", None)
    ask = getattr(queue, "get_current_queue_volatile", None) or getattr(queue, "get_current_queue", None)
    try:
        return list(ask()[0]) if ask is not None else []
    except Exception:  # a queue that another pack put in its place; a sentence less is no reason to lose a picture
        return []


def _known(graph: Mapping[str, Any], node: Any) -> str | None:
    """The node of the queued graph: one that a node made while it ran, '5.0.3', is shown as that node, '5'."""
    node = None if node is None else str(node)
    while node is not None and node not in graph:
        node = node.rpartition(".")[0] or None
    return node
