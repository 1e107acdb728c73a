"""The trainings that run now, for browsers: a page that is opened late asks what it missed, and the Stop button ends one gracefully."""
from __future__ import annotations

import sys
import threading
from typing import Any, Mapping

_running: dict[str, "LiveTraining"] = {}


class LiveTraining:
    """One training while it runs: its latest messages, and whether the artist wants it to end. Open it in a ``with`` statement."""

    def __init__(self, node_id: Any):
        self.node_id = node_id
        self.progress: Mapping[str, object] | None = None
        self.preview: Mapping[str, object] | None = None
        self._stop = threading.Event()

    def __enter__(self) -> "LiveTraining":
        _running[str(self.node_id)] = self
        return self

    def __exit__(self, *exception) -> None:
        _running.pop(str(self.node_id), None)

    def stopping(self) -> bool:
        """Whether Stop was pressed."""
        return self._stop.is_set()

    def stop(self) -> None:
        """End the training after the step it is in."""
        self._stop.set()

    def send(self, event: str, message: Mapping[str, object]) -> None:
        """To every open page; nothing happens where there is none, or no server."""
        server = host_server()
        if server is not None:
            server.send_sync(event, dict(message))


def register_routes() -> None:
    """``GET /idea/training``: the latest messages of what runs now. ``POST /idea/training/stop`` with ``{"node": id}``: end that one."""
    server = host_server()
    if server is None:  # tools read the nodes without a server
        return
    web = sys.modules["server"].web  # the host's own

    @server.routes.get("/idea/training")
    async def running(request):
        return web.json_response([{"progress": one.progress, "preview": one.preview} for one in list(_running.values()) if one.progress])

    @server.routes.post("/idea/training/stop")
    async def stop(request):
        try:
            asked = await request.json()
        except ValueError:
            asked = None
        found = _running.get(str(asked.get("node"))) if isinstance(asked, dict) else None
        if found is not None:
            found.stop()
        return web.json_response({"stopping": found is not None})


def host_server():
    """The host's server, if there is one; it is never imported for this, for a process without it has no use for it."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
