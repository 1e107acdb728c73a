"""The client says in a sentence what went wrong, and reads the server's messages as they come."""
import json
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from launcher.client import Client, _rejection
from launcher.errors import HostGoneError, InterruptedRunError, NodeFailedError, PromptRejectedError, WebSocketClosed
from launcher.websocket import WebSocket

GRAPH = {"3": {"class_type": "KSampler", "inputs": {}}}


def frame(payload: bytes, kind=1, final=True, wide=False) -> bytes:
    size = bytes([126]) + struct.pack(">H", len(payload)) if wide or len(payload) > 125 else bytes([len(payload)])
    return bytes([(0x80 if final else 0) | kind]) + size + payload


@pytest.fixture
def peer():
    """A server end that has shaken hands with a WebSocket: `(websocket, connection)`."""
    listening = socket.create_server(("127.0.0.1", 0))
    accepted = []

    def accept():
        connection, _ = listening.accept()
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n" + frame(b"with the handshake"))
        accepted.append(connection)

    thread = threading.Thread(target=accept)
    thread.start()
    websocket = WebSocket("127.0.0.1", listening.getsockname()[1], "/ws")
    thread.join()
    yield websocket, accepted[0]
    websocket.close()
    accepted[0].close()
    listening.close()


def test_a_frame_that_came_with_the_handshake_is_not_lost(peer):
    assert peer[0].receive(1) == "with the handshake"


def test_frames_arrive_in_pieces_between_pictures_and_pings(peer):
    websocket, connection = peer
    websocket.receive(1)
    text = "é" * 200
    whole = frame(b"picture", kind=2, final=False) + frame(b"rest", kind=0) + frame(b"ping", kind=9) + frame(text.encode())
    connection.sendall(whole[:-50])
    assert websocket.receive(0.2) is None  # not there yet
    connection.sendall(whole[-50:])
    assert websocket.receive(1) == text
    assert connection.recv(100)[0] == 0x8A  # the ping was answered


def test_a_text_in_two_frames_is_one_message(peer):
    websocket, connection = peer
    websocket.receive(1)
    connection.sendall(frame(b"one ", final=False) + frame(b"two", kind=0))
    assert websocket.receive(1) == "one two"


def test_an_ended_connection_is_said(peer):
    websocket, connection = peer
    websocket.receive(1)
    connection.shutdown(socket.SHUT_RDWR)
    with pytest.raises(WebSocketClosed):
        websocket.receive(1)


class Answers(BaseHTTPRequestHandler):
    """Answers every path from the server's table: path → (code, JSON)."""

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        code, body = self.server.table.get(self.path.split("?")[0], (404, {}))
        body = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def client():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.table = {}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = Client(f"http://127.0.0.1:{server.server_port}")
    client.table = server.table
    yield client
    server.shutdown()
    server.server_close()


def ended(kind, **data):
    return 200, {"p": {"outputs": {}, "status": {"messages": [["execution_start", {}], [kind, data]]}}}


def test_a_node_s_own_sentence_reaches_the_caller(client):
    client.table["/history/p"] = ended("execution_error", node_id="3", node_type="KSampler", exception_message="No face.\n", traceback=["File x\n"])
    with pytest.raises(NodeFailedError, match=r"KSampler \(node 3\): No face\.$") as caught:
        client.wait("p")
    assert caught.value.sentence == "No face." and "File x" in caught.value.traceback


def test_a_cancelled_run_is_told_from_a_failed_one(client):
    client.table["/history/p"] = ended("execution_interrupted", node_type="KSampler")
    with pytest.raises(InterruptedRunError, match="KSampler"):
        client.wait("p")


def test_a_finished_run_gives_its_pictures_and_what_was_cached(client):
    client.table["/history/p"] = (200, {"p": {"outputs": {"9": {"images": [{"filename": "a.png"}]}}, "status": {"messages": [
        ["execution_cached", {"nodes": ["1", "2"], "prompt_id": "p"}]]}}})
    execution = client.wait("p")
    assert execution.pictures() == execution.pictures("9") == [{"filename": "a.png"}] and execution.cached == {"1", "2"}


def test_a_refused_graph_names_node_input_and_reason(client):
    client.table["/prompt"] = (400, {"error": {"message": "failed"}, "node_errors": {
        "3": {"class_type": "KSampler", "errors": [{"message": "Value not in list", "details": "sampler_name: 'x'"}]}}})
    with pytest.raises(PromptRejectedError, match=r"KSampler \(node 3\): Value not in list: sampler_name: 'x'") as caught:
        client.submit(GRAPH)
    assert "3" in caught.value.node_errors


@pytest.mark.parametrize("body, words", [
    (b"not json", "not json"), (b'{"error": "no prompt"}', "no prompt"),
    (b'{"error": {"message": "Cannot execute", "details": "node x"}, "node_errors": []}', "Cannot execute node x")])
def test_every_form_of_refusal_becomes_a_sentence(body, words):
    assert words in str(_rejection(body, GRAPH))


def test_a_host_that_is_gone_is_said(client):
    gone = Client("http://127.0.0.1:9")
    with pytest.raises(HostGoneError, match="does not answer"):
        gone.run(GRAPH)
    with pytest.raises(HostGoneError, match="does not answer"):
        gone.object_info()


def test_a_photograph_is_uploaded_whole(client, tmp_path):
    client.table["/upload/image"] = (200, {"name": "a.png", "subfolder": "in"})
    (tmp_path / 'Änne "x".png').write_bytes(b"\x00\xff")
    assert client.upload_picture(tmp_path / 'Änne "x".png') == "in/a.png"
