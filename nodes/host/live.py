"""The trainings that run now, for browsers: a page that is opened late asks what it missed, and the Stop button ends one gracefully."""
from __future__ import annotations

import ipaddress
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
        if request.content_type != "application/json":  # what another site's page may send without asking first is of other kinds
            return web.json_response({"error": f"expected application/json, got {request.content_type[:60]}"}, status=415)
        if not _from_our_page(request):
            return web.json_response({"error": "asked by a page of another origin"}, status=403)
        try:
            asked = await request.json()
        except ValueError:
            asked = None
        found = _running.get(str(asked.get("node"))) if isinstance(asked, dict) else None
        if found is not None:
            found.stop()
        return web.json_response({"stopping": found is not None})


def _from_our_page(request) -> bool:
    """Whether who asks is no page, or one that this host served; where the host was started to serve other sites' pages, one of those.

    The host looks at origins itself, but lets ``null`` pass, which is what frames in a sandbox are. Like the host we compare names only where
    ours is that of this machine: behind a proxy it may be another than the page's.
    """
    if "Origin" not in request.headers or _serves_other_sites():
        return True
    ours = request.url
    try:
        origin = type(ours)(request.headers["Origin"])
    except ValueError:
        return False
    ports = {port for port in (origin.explicit_port, ours.explicit_port) if port is not None}
    same = origin.host == ours.host and len(ports) < 2  # a usual port is left out by some
    return bool(origin.host) and (same or not _is_this_machine(ours.host))


def _is_this_machine(name: str | None) -> bool:
    try:
        return name == "localhost" or ipaddress.ip_address(name or "").is_loopback
    except ValueError:
        return False


def _serves_other_sites() -> bool:
    """Whether the host was started with --enable-cors-header."""
    options = sys.modules.get("comfy.cli_args")
    return bool(getattr(getattr(options, "args", None), "enable_cors_header", None))


def host_server():
    """The host's server, if there is one; it is never imported for this, for a process without it has no use for it."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
