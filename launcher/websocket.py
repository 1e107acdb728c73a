"""Reads a server's messages over a WebSocket (RFC 6455), as far as a ComfyUI client needs: text in, pongs out."""
import base64
import os
import socket
import struct

from .errors import LauncherError, WebSocketClosed

CONTINUED, TEXT, CLOSE, PING, PONG = 0x0, 0x1, 0x8, 0x9, 0xA
LARGEST = 256 * 2**20  # a preview picture is a few hundred kilobytes; more than this is not ComfyUI


class WebSocket:
    """An open connection; `receive` hands out one text message at a time."""

    def __init__(self, host: str, port: int, path: str, timeout: float = 10):
        self._socket = socket.create_connection((host, port), timeout=timeout)
        self._buffer = bytearray()
        self._parts: bytearray | None = None  # of a text message under way
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall((f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                              f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
        while b"\r\n\r\n" not in self._buffer:
            self._read_more()
        head, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        self._buffer = bytearray(rest)
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise LauncherError(f"The server on port {port} refused a WebSocket: {head.splitlines()[0].decode(errors='replace')}")

    def receive(self, timeout: float) -> str | None:
        """Return the next text message, or None after `timeout` seconds without one. Raises WebSocketClosed."""
        self._socket.settimeout(timeout)
        while True:
            try:
                final, kind, payload = self._frame()
            except TimeoutError:
                return None  # what has arrived of a frame stays in the buffer
            if kind == PING:
                self._send(PONG, payload)
            elif kind == CLOSE:
                raise WebSocketClosed("The server closed the connection.")
            elif kind == TEXT or (kind == CONTINUED and self._parts is not None):  # pictures, which are binary, are passed over
                self._parts = (self._parts or bytearray()) + payload
                if final:
                    text, self._parts = self._parts.decode("utf-8", "replace"), None
                    return text

    def close(self):
        """End the connection."""
        try:
            self._send(CLOSE, b"")
        except OSError:
            pass
        self._socket.close()

    def _frame(self) -> tuple[bool, int, bytes]:
        """Take one whole frame off the buffer; the buffer is left as it is until the frame is complete."""
        self._need(2)
        first, second = self._buffer[0], self._buffer[1]
        start, size = 2, second & 0x7F
        if size in (126, 127):
            width = 2 if size == 126 else 8
            self._need(2 + width)
            start, size = 2 + width, struct.unpack(">H" if width == 2 else ">Q", self._buffer[2:2 + width])[0]
        if size > LARGEST:
            raise LauncherError(f"The server sent a message of {size} bytes; that is not ComfyUI.")
        self._need(start + size)
        payload = bytes(self._buffer[start:start + size])
        del self._buffer[:start + size]
        return bool(first & 0x80), first & 0x0F, payload

    def _need(self, size: int):
        while len(self._buffer) < size:
            self._read_more()

    def _read_more(self):
        data = self._socket.recv(65536)
        if not data:
            raise WebSocketClosed("The server ended the connection.")
        self._buffer += data

    def _send(self, kind: int, payload: bytes):
        mask = os.urandom(4)  # a client masks what it sends
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload[:125]))
        self._socket.sendall(bytes([0x80 | kind, 0x80 | len(masked)]) + mask + masked)
