"""A client of a running host: what the browser does, over HTTP, with each failure as a sentence."""
import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .errors import (
    HostGoneError,
    HTTPAnswerError,
    InterruptedRunError,
    LauncherError,
    NodeFailedError,
    PromptRejectedError,
    WebSocketClosed,
)
from .websocket import WebSocket


@dataclass(frozen=True)
class Execution:
    """One finished run of a graph."""

    prompt_id: str
    outputs: dict[str, dict]  # node id → what the node shows, such as {"images": [{"filename", "subfolder", "type"}]}
    cached: frozenset[str] = frozenset()  # ids of the nodes that did not have to run
    seconds: dict[str, float] = field(default_factory=dict)  # node id → run time

    def pictures(self, node_id: str | None = None) -> list[dict]:
        """Return the pictures of one node, or of all."""
        nodes = [self.outputs.get(node_id, {})] if node_id else self.outputs.values()
        return [picture for shown in nodes for picture in shown.get("images", [])]


class Client:
    """Talks to the host at `address` (`http://127.0.0.1:8188`)."""

    def __init__(self, address: str):
        self.address = address.rstrip("/")
        self.client_id = uuid.uuid4().hex
        self._declarations: dict | None = None

    def object_info(self) -> dict:
        """Return the declarations of every node type; asked for once."""
        if self._declarations is None:
            self._declarations = self._json("/object_info")
        return self._declarations

    def upload_picture(self, path: Path) -> str:
        """Put a photograph among the host's input pictures; return the name a LoadImage node takes."""
        boundary = uuid.uuid4().hex
        name = path.name.encode("ascii", "replace").decode().replace('"', "_").replace("?", "_")
        body = b"".join([
            f'--{boundary}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\ntrue\r\n'.encode(),
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\nContent-Type: application/octet-stream\r\n\r\n'.encode(),
            path.read_bytes(), f"\r\n--{boundary}--\r\n".encode()])
        answer = json.loads(self._ask("/upload/image", body, f"multipart/form-data; boundary={boundary}"))
        return f"{answer['subfolder']}/{answer['name']}" if answer.get("subfolder") else answer["name"]

    def picture(self, picture: dict) -> bytes:
        """Return the bytes of a picture that an Execution names."""
        query = urllib.parse.urlencode({key: picture[key] for key in ("filename", "subfolder", "type") if key in picture})
        return self._ask(f"/view?{query}")

    def interrupt(self):
        """Cancel what is running."""
        self._ask("/interrupt", b"{}")

    def free(self):
        """Ask the host to unload its models and forget its cached results."""
        self._ask("/free", json.dumps({"unload_models": True, "free_memory": True}).encode())

    def submit(self, prompt: dict) -> str:
        """Queue a graph in API format and return its id at once. Raises PromptRejectedError."""
        try:
            return self._json("/prompt", {"prompt": prompt, "client_id": self.client_id})["prompt_id"]
        except HTTPAnswerError as error:
            raise _rejection(error.body, prompt) from None

    def run(self, prompt: dict, on_message: Callable[[str, dict], None] = lambda kind, data: None, timeout: float = 600) -> Execution:
        """Queue a graph and return when it has finished.

        `on_message(kind, data)` is given every message of the server meanwhile: `executing`, `progress`, `idea.progress` …
        Raises PromptRejectedError, NodeFailedError, InterruptedRunError, HostGoneError, and LauncherError after `timeout` seconds.
        """
        where = urllib.parse.urlsplit(self.address)
        try:
            socket = WebSocket(where.hostname, where.port, f"/ws?clientId={self.client_id}")
        except OSError as error:
            raise HostGoneError(f"The host at {self.address} does not answer: {error}.") from error
        try:
            prompt_id = self.submit(prompt)
            watch = _Stopwatch(prompt_id)
            deadline = time.monotonic() + timeout
            while True:
                kind, data = _parsed(self._receive(socket, deadline))
                if kind:
                    on_message(kind, data)
                    watch.see(kind, data)
                if not kind or kind in ("execution_success", "execution_error", "execution_interrupted") or (kind == "executing" and data.get("node") is None):
                    if entry := self._json(f"/history/{prompt_id}").get(prompt_id):
                        return self._finished(prompt_id, entry, watch)
                if time.monotonic() > deadline:
                    self.interrupt()
                    raise LauncherError(f"The graph did not finish within {timeout:.0f} seconds and was cancelled.")
        finally:
            socket.close()

    def wait(self, prompt_id: str, timeout: float = 600) -> Execution:
        """Return when a graph that was queued with `submit` has finished. Raises like `run`."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if entry := self._json(f"/history/{prompt_id}").get(prompt_id):
                return self._finished(prompt_id, entry, _Stopwatch(prompt_id))
            time.sleep(0.1)
        raise LauncherError(f"The graph did not finish within {timeout:.0f} seconds.")

    @staticmethod
    def _receive(socket: WebSocket, deadline: float) -> str | None:
        try:
            return socket.receive(timeout=max(0.05, min(2.0, deadline - time.monotonic())))
        except WebSocketClosed:
            time.sleep(0.2)  # the history tells whether the host still lives
            return None
        except OSError as error:
            raise HostGoneError(f"The host ended the connection: {error}.") from error

    @staticmethod
    def _finished(prompt_id: str, entry: dict, watch: "_Stopwatch") -> Execution:
        for kind, data in (entry.get("status") or {}).get("messages", []):
            if kind == "execution_error":
                raise NodeFailedError(str(data.get("node_id")), data.get("node_type", "node"), str(data.get("exception_message", "")).strip(),
                                      data.get("exception_type", ""), "".join(data.get("traceback", [])))
            if kind == "execution_interrupted":
                raise InterruptedRunError(f"The run was cancelled in {data.get('node_type', 'a node')}.")
            if kind == "execution_cached":
                watch.see(kind, data)
        return Execution(prompt_id, entry["outputs"], frozenset(watch.cached), watch.finished())

    def _json(self, path: str, body: dict | None = None) -> dict:
        return json.loads(self._ask(path, None if body is None else json.dumps(body).encode()))

    def _ask(self, path: str, body: bytes | None = None, content_type: str = "application/json") -> bytes:
        request = urllib.request.Request(self.address + path, data=body, headers={"Content-Type": content_type} if body is not None else {})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise HTTPAnswerError(path, error.code, error.read()) from None
        except OSError as error:
            raise HostGoneError(f"The host at {self.address} does not answer: {getattr(error, 'reason', error)}.") from error


class _Stopwatch:
    """Adds up how long each node of one run takes, from the server's messages."""

    def __init__(self, prompt_id: str):
        self._prompt_id, self._node, self._since = prompt_id, None, 0.0
        self.cached: set[str] = set()
        self.seconds: dict[str, float] = {}

    def see(self, kind: str, data: dict):
        if data.get("prompt_id", self._prompt_id) != self._prompt_id:
            return
        if kind == "execution_cached":
            self.cached |= {str(node) for node in data.get("nodes", [])}
        elif kind == "executing":
            self.finished()
            self._node, self._since = data.get("node"), time.monotonic()

    def finished(self) -> dict[str, float]:
        if self._node is not None:
            self.seconds[str(self._node)] = self.seconds.get(str(self._node), 0.0) + time.monotonic() - self._since
            self._node = None
        return self.seconds


def _parsed(text: str | None) -> tuple[str, dict]:
    """Return kind and data of a message; a kind of '' means silence."""
    if not text:
        return "", {}
    message = json.loads(text)
    return message.get("type", "?"), message.get("data") or {}


def _rejection(body: bytes, prompt: dict) -> PromptRejectedError:
    try:
        answer = json.loads(body)
    except ValueError:
        return PromptRejectedError(f"The host refused the graph: {body[:300].decode(errors='replace')}", {})
    reasons = []
    node_errors = answer.get("node_errors") or {}
    for node_id, problem in node_errors.items():
        for error in problem.get("errors", []):
            reasons.append(f"{problem.get('class_type') or prompt.get(node_id, {}).get('class_type')} (node {node_id}): "
                           f"{error.get('message')}{': ' + str(error['details']) if error.get('details') else ''}")
    if not reasons:
        error = answer.get("error") or {}
        reasons = [f"{error.get('message', error)} {error.get('details', '')}".strip() if isinstance(error, dict) else str(error)]
    return PromptRejectedError("The host refused the graph. " + "; ".join(reasons), node_errors)
