"""A host process is started, watched, and stopped together with everything it started."""
import os
import sys
import time

import pytest
from launcher.base_directory import BaseDirectory
from launcher.errors import LauncherError
from launcher.hosts import Host, pip_host
from launcher.server import HostProcess, free_port

ANSWERS = """
import argparse, http.server, subprocess, sys
options = argparse.ArgumentParser()
options.add_argument("--port", type=int)
port = options.parse_known_args()[0].port
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("child", child.pid, flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def make(tmp_path):
    def make(main: str, flags: str = "") -> HostProcess:
        root = tmp_path / "ComfyUI"
        (root / "comfy").mkdir(parents=True)
        (root / "comfy" / "cli_args.py").write_text(flags, encoding="utf-8")
        (root / "main.py").write_text(main, encoding="utf-8")
        return HostProcess(Host("1.0", root, "test"), BaseDirectory.make(tmp_path / "base"))

    return make


def is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except OSError:
        return False
    try:  # a zombie whose parent has not fetched it yet counts as ended
        with open(f"/proc/{process_id}/stat", encoding="utf-8") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return sys.platform != "linux"


@pytest.mark.skipif(sys.platform == "win32", reason="asks for process ids the POSIX way")
def test_stopping_ends_the_host_and_its_children(make):
    process = make(ANSWERS)
    with process:
        child = int(process.log_text().split()[1])
        assert process.is_alive() and is_running(child)
    deadline = time.monotonic() + 5
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not process.is_alive() and not is_running(child)
    process.stop()  # once more does nothing


def test_a_host_that_dies_while_starting_shows_its_last_words(make):
    with pytest.raises(LauncherError, match="(?s)comfyui-1.0 stopped while starting.*host.log.*no module named torch"):
        make("raise SystemExit('no module named torch')").start()


def test_a_host_that_never_answers_is_given_up_and_ended(make):
    process = make("import time; time.sleep(60)")
    with pytest.raises(LauncherError, match="did not answer within 1 seconds"):
        process.start(patience=1)
    assert not process.is_alive()


def test_a_checkout_keeps_its_database_in_the_base_directory_where_it_can(make):
    process = make("", flags='"--database-url"')
    command = " ".join(process.command())
    assert "--base-directory" in command and "sqlite:///" + process.base.root.as_posix() in command and "--cpu" in command


def test_the_pip_host_gets_its_own_folder_and_no_foreign_options(tmp_path, monkeypatch):
    monkeypatch.setenv("COMFYUI_PORT", "1")
    process = HostProcess(pip_host(), BaseDirectory.make(tmp_path), cpu=False)
    assert "COMFYUI_PORT" not in process.process_variables() and process.process_variables()["PYTHONPATH"].endswith("pip-host")
    assert process.command()[1:3] == ["-m", "comfy.cmd.main"] and "--cpu" not in process.command()


def test_a_taken_port_is_replaced_by_a_free_one():
    import socket
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert free_port(taken.getsockname()[1]) != taken.getsockname()[1]
