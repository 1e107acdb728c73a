"""The links of a queued graph, both ways, with their types; a graph alone does not say what its links carry."""
from __future__ import annotations

import re
from typing import Any, Iterable, Mapping, Sequence

Graph = Mapping[str, Mapping[str, Any]]  # node id → {"class_type", "inputs"}: what a host runs ('API format')
Types = Mapping[str, Sequence[str]]  # class of a node → the types of its outputs
Socket = tuple[str, int]  # a node and the number of its output

OURS = "IDEA_"
# A string that is the name of a model's file is no prompt.
_FILE = re.compile(r"[^\n]+\.(safetensors|sft|ckpt|pth?|bin|gguf|onnx|ya?ml|json|txt|png|jpe?g|webp)", re.IGNORECASE)
# Links of these types bring no text. What is neither among them nor STRING may be a bundle of anything ('pipe').
NO_TEXT = {
    "MODEL",
    "CLIP",
    "VAE",
    "CONDITIONING",
    "LATENT",
    "IMAGE",
    "MASK",
    "INT",
    "FLOAT",
    "BOOLEAN",
    "COMBO",
    "NOISE",
    "SAMPLER",
    "SIGMAS",
    "GUIDER",
    "CLIP_VISION",
    "CLIP_VISION_OUTPUT",
    "CONTROL_NET",
    "STYLE_MODEL",
    "GLIGEN",
    "UPSCALE_MODEL",
    "HOOKS",
    "HOOK_KEYFRAMES",
    "AUDIO",
    "VIDEO",
}


def text_title(graph: Graph, node_id: str) -> str:
    """'CLIP Text Encode (#6)': a node as its artist knows it."""
    node = graph.get(node_id, {})
    meta = node.get("_meta")  # where a page queued the graph: how it calls the node
    title = meta.get("title") if isinstance(meta, Mapping) else None
    kind = str(node.get("class_type", "node")).replace("_", " ")
    return f"{title or re.sub(r'(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z][A-Z])(?=[A-Z][a-z])', ' ', kind)} (#{node_id})"


class Wiring:
    """The links of a graph, both ways, with their types."""

    def __init__(self, graph: Graph, types: Types):
        self.graph, self.types = graph, types
        self.links: dict[str, dict[str, Socket]] = {}
        self.strings: dict[str, list[str]] = {}  # what was typed into a node
        self.takes_text: set[str] = set()  # nodes into which something could be typed
        self.readers: dict[str, list[str]] = {id: [] for id in graph}
        self._kinds: dict[Socket, frozenset[str]] = {}
        self._ways: dict[tuple[tuple[Socket, ...], str], dict[Socket, None]] = {}
        for id in graph:
            found, texts = {}, []
            for name, value in self.inputs(id).items():
                if isinstance(value, str):
                    if not _FILE.fullmatch(value.strip()):
                        self.takes_text.add(id)
                        texts += [value] if value.strip() else []
                elif _is_link(value) and str(value[0]) in graph:
                    found[name] = (str(value[0]), value[1])
            self.links[id], self.strings[id] = found, texts
        for id, sources in self.links.items():
            for source in {node for node, _ in sources.values()}:
                self.readers[source].append(id)

    def inputs(self, id: str) -> Mapping[str, Any]:
        inputs = self.graph[id].get("inputs")
        return inputs if isinstance(inputs, Mapping) else {}

    def kind(self, id: str) -> str:
        return str(self.graph[id].get("class_type"))

    def is_ours(self, id: str) -> bool:
        return self.kind(id).startswith(OURS)

    def outputs(self, id: str) -> Sequence[str]:
        return self.types.get(self.kind(id), ())

    def kinds(self, socket: Socket) -> frozenset[str]:
        """What a socket gives: of one that gives anything, what goes into its node; nothing where that is not known."""
        if socket not in self._kinds:
            self._kinds[socket] = frozenset()  # for a graph that runs in a circle; the host refuses it afterwards
            id, number = socket
            outputs = self.outputs(id)
            said = outputs[number].split(",") if 0 <= number < len(outputs) else ["*"]
            if any(one == "*" or one.startswith("COMFY_") for one in said):
                self._kinds[socket] = frozenset().union(*(self.kinds(source) for source in self.links[id].values()))
            else:
                self._kinds[socket] = frozenset(said)
        return self._kinds[socket]

    def sources(self, id: str, kind: str) -> list[Socket]:
        """The sockets from which a node is given something of a type."""
        return [socket for socket in self.links[id].values() if kind in self.kinds(socket)]

    def bundles(self, id: str) -> list[Socket]:
        """The sockets from which a node is given what may hold anything."""
        return [socket for socket in self.links[id].values() if not self.kinds(socket) & (NO_TEXT | {"STRING"})]

    def way(self, sockets: Sequence[Socket], kind: str) -> Mapping[Socket, None]:
        """``sockets`` and every one before them on the way that something of a type has come, the nearest first."""
        key = (tuple(sockets), kind)
        if key not in self._ways:
            way: dict[Socket, None] = {}
            todo = list(sockets)
            for socket in todo:  # grows meanwhile
                if socket not in way:
                    way[socket] = None
                    todo += self.sources(socket[0], kind) or self.bundles(socket[0])
            self._ways[key] = way
        return self._ways[key]

    def before(self, ids: Iterable[str]) -> set[str]:
        """The nodes and all that they hang on."""
        found: set[str] = set()
        todo = [id for id in ids if id in self.graph]
        while todo:
            one = todo.pop()
            if one not in found:
                found.add(one)
                todo += [source for source, _ in self.links[one].values()]
        return found


def _is_link(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and isinstance(value[0], (str, int))
        and type(value[1]) is int
    )
