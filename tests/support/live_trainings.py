"""Running trainings as an artist's page sees them: messages, Cancel, Stop."""
from __future__ import annotations

import json
import threading
import urllib.request

import pytest

from launcher.errors import InterruptedRunError


def cancel_when(host, graph, reached):
    """Queue the graph and press cancel as soon as a training step satisfies ``reached``; returns the messages seen."""
    seen, pressed = [], threading.Event()

    def listen(kind, data):
        if kind == "idea.progress":
            seen.append(data)
            if reached(data["step"]) and not pressed.is_set():
                pressed.set()
                host.client.interrupt()

    with pytest.raises(InterruptedRunError):
        host.run(graph, on_message=listen)
    return seen


def ask(host, path, message=None, headers=None):
    """The JSON answer of the host to a page's question."""
    body = None if message is None else json.dumps(message).encode()
    request = urllib.request.Request(host.client.address + path, body, headers or {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def run_and_stop(host, graph, node, at: int = 2):
    """Queue the graph and press Stop on ``node`` once its training has done ``at`` steps.

    Returns:
        the outputs of the graph, the states of the messages, what a page opened meanwhile is told, and the answer to Stop.
    """
    late, answers, states = [], [], []

    def press(kind, data):
        if kind != "idea.progress":
            return
        states.append(data["state"])
        if data["step"] >= at and not answers:
            late.extend(ask(host, "/idea/training"))
            answers.append(ask(host, "/idea/training/stop", {"node": node.id}))

    outputs = host.run(graph, on_message=press).outputs
    return outputs, states, late, answers
