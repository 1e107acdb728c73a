"""What a node has to say without failing the run: a line in the log, and a sentence on the node in its page."""
from __future__ import annotations

import logging
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Mapping

from .live import host_server

EVENT = "idea.notice"
_told: set[str | None] = set()  # the pages with a sentence on a node
_failed: list[str] = []  # what went wrong while a graph was read; once is enough
_said: set[tuple[str | None, str]] = set()
_said_in: list[str | None] = [None]  # the prompt that `_said` belongs to


@dataclass(frozen=True)
class RunningPrompt:
    """What the host draws now.

    Attributes: graph: node id → {"class_type", "inputs"}, the API format, as it was queued; node_id: of the node that
    runs now, as the graph knows it, or None where the host does not tell; prompt_id: another for every queued prompt.
    """

    graph: Mapping[str, Mapping[str, Any]]
    node_id: str | None
    prompt_id: str


def notify(node_id: str | None, text: str) -> None:
    """Say ``text`` on a node, once for each queued prompt; without a node only the log has it. Never raises."""
    now = running()
    prompt_id = now.prompt_id if now is not None else None
    if prompt_id is None or prompt_id != _said_in[0]:  # outside of a prompt nothing tells one time from another
        _said.clear()
        _said_in[0] = prompt_id
    if (node_id, text) in _said:
        return
    _said.add((node_id, text))
    graph = now.graph if now is not None else {}
    say(node_id, text, graph, getattr(host_server(), "client_id", None), prompt_id)


def register_notices() -> None:
    """Read every graph when it is queued. Hosts without the hook, and tools without a server, have none of it."""
    add = getattr(host_server(), "add_on_prompt_handler", None)
    if add is not None:
        add(read_queued)


def read_queued(request: Any) -> Any:
    """Say on its Apply ID Adapter nodes what is wrong in a graph that is being queued.

    Args:
        request: of ``POST /prompt``, {"prompt": graph, "client_id": page}; it is returned as it is.
    """
    try:
        graph, client = request.get("prompt"), request.get("client_id")
        if isinstance(graph, Mapping):
            _read(graph, client)
    except Exception as error:  # whatever a page or another pack sends: queueing it is more than a hint
        if repr(error) not in _failed:
            _failed.append(repr(error))
            logging.warning("ID-EA could not read the queued graph for hints; it runs as it is.", exc_info=True)
    return request


def _read(graph: Mapping[str, Mapping[str, Any]], client: str | None) -> None:
    from ..graph_check import APPLY, check_graph

    # A page may still show what an earlier process of this host said, so it forgets whenever we could have spoken.
    if client in _told or any(node.get("class_type") in APPLY for node in graph.values()):
        _told.discard(client)
        _send({"node": None, "text": ""}, client)
    for notice in check_graph(graph, output_types(graph), saved_trigger):
        say(notice.node_id, notice.text, graph, client)


def saved_trigger(name: str) -> str | None:
    """The trigger in the header of a file that Load Identity lists; None where it is another tool's, or unreadable."""
    from safetensors import safe_open

    from ...idea_engine.prompts.trigger import check_trigger
    from .paths import identity_path

    try:
        with safe_open(identity_path(name), framework="numpy") as file:
            return check_trigger((file.metadata() or {})["idea.trigger"])
    except Exception:  # Load Identity says what is wrong with a file, in the host's own way
        return None


def say(
    node_id: str | None,
    text: str,
    graph: Mapping[str, Mapping[str, Any]],
    client: str | None,
    prompt_id: str | None = None,
) -> None:
    """Say ``text`` on a node of ``graph`` now, however often it was said.

    Args:
        client: the page that queued the graph; None for every open page.
        prompt_id: of the prompt that ran into it, so that the sentence goes when another one starts.
    """
    logging.warning("ID-EA, node %s: %s" if node_id is not None else "ID-EA: %s%s", node_id or "", text)
    if node_id is not None:
        _told.add(client)
        _send({"node": node_id, "type": graph.get(node_id, {}).get("class_type"), "text": text, "prompt_id": prompt_id}, client)


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


def output_types(graph: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Class of a node → the types of its outputs, for the nodes of a graph that this host has."""
    # Hosts of 2024 keep packs' nodes beside the module of their own.
    places = (sys.modules.get("nodes"), getattr(host_server(), "nodes", None))
    classes: dict[str, Any] = {}
    for place in places:
        classes.update(getattr(place, "NODE_CLASS_MAPPINGS", None) or {})
    found = {}
    for name in {str(node.get("class_type")) for node in graph.values() if isinstance(node, Mapping)}:
        types = getattr(classes.get(name), "RETURN_TYPES", None)
        if isinstance(types, (tuple, list)):
            found[name] = tuple(str(one) for one in types)
    return found


def _send(message: Mapping[str, Any], client: str | None) -> None:
    server = host_server()
    if server is not None:
        with suppress(RuntimeError):  # the server's loop is closed: the host is ending
            server.send_sync(EVENT, dict(message), client)


def _executing() -> Any:
    """The host's own note of prompt and node, where it keeps one; read, never imported."""
    ask = getattr(sys.modules.get("comfy_execution.utils"), "get_executing_context", None)
    context = ask() if ask is not None else None
    return context if hasattr(context, "prompt_id") and hasattr(context, "node_id") else None


def _current(server: Any) -> list:
    """The queue's items that run now: (number, prompt id, graph, …), without a copy of all that waits."""
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
