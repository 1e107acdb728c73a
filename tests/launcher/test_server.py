"""A host process is started, watched, and stopped together with everything it started."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher.base_directory import BaseDirectory
from launcher.errors import LauncherError
from launcher.hosts import Host, pip_host
from launcher.server import HostProcess, free_port

ROOT = Path(__file__).resolve().parents[2]
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


def has_ended(process_id: int, within: float = 5) -> bool:
    deadline = time.monotonic() + within
    while is_running(process_id) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_running(process_id)


@pytest.mark.skipif(sys.platform == "win32", reason="asks for process ids the POSIX way")
def test_stopping_ends_the_host_and_its_children(make):
    process = make(ANSWERS)
    with process:
        child = int(process.log_text().split()[1])
        assert process.is_alive() and is_running(child)
    assert has_ended(child) and not process.is_alive()
    process.stop()  # once more does nothing


OWNER = """
import importlib.util, pathlib, sys, time
spec = importlib.util.spec_from_file_location("launcher", sys.argv[1] + "/launcher/__init__.py", submodule_search_locations=[sys.argv[1] + "/launcher"])
sys.modules["launcher"] = importlib.util.module_from_spec(spec)
from launcher.base_directory import BaseDirectory
from launcher.hosts import Host
from launcher.server import HostProcess
process = HostProcess(Host("1.0", pathlib.Path(sys.argv[2]), "test"), BaseDirectory(pathlib.Path(sys.argv[3])))
process.start()
print(process.process_id, process.log_text().split()[1], flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="asks for process ids the POSIX way")
def test_a_killed_owner_takes_its_host_along(make, tmp_path):
    process = make(ANSWERS)
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(ROOT), str(process.host.root), str(process.base.root)], stdout=subprocess.PIPE, text=True)
    host, child = map(int, owner.stdout.readline().split())
    assert is_running(host) and is_running(child)
    owner.kill()  # which no program can catch, nor its end be told to others by it
    owner.wait()
    assert has_ended(host) and has_ended(child)


@pytest.mark.skipif(sys.platform == "win32", reason="process groups are the POSIX way")
def test_killing_the_owner_s_whole_group_takes_its_host_along(make):
    process = make(ANSWERS)
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(ROOT), str(process.host.root), str(process.base.root)], stdout=subprocess.PIPE, text=True,
                             start_new_session=True)
    host, child = map(int, owner.stdout.readline().split())
    os.killpg(owner.pid, signal.SIGKILL)
    owner.wait()
    assert has_ended(host) and has_ended(child)


@pytest.mark.skipif(sys.platform == "win32", reason="asks for process ids the POSIX way")
def test_a_host_lives_as_long_as_its_owner(make):
    process = make(ANSWERS)
    with process:
        subprocess.run([sys.executable, "-c", "pass"])  # the end of another child is not the end of the owner
        time.sleep(0.5)
        assert process.is_alive() and is_running(process.process_id)


def test_the_exit_code_is_the_host_s_own(make):
    with pytest.raises(LauncherError, match=r"exit code 7\)"):
        make("raise SystemExit(7)").start()


def test_a_host_that_lacks_a_package_says_which(make):
    main = """
import sys
print("\\x1b[32m[INFO]\\x1b[0m starting")
print("Traceback (most recent call last):\\n  File x\\n\\x1b[1;35mModuleNotFoundError\\x1b[0m: \\x1b[35mNo module named 'never_heard_of'\\x1b[0m")
print("and so on\\n" * 30)
sys.exit(1)
"""
    with pytest.raises(LauncherError) as caught:
        make(main).start()
    first, second, *last, hint = str(caught.value).splitlines()
    assert first.endswith("(exit code 1): ModuleNotFoundError: No module named 'never_heard_of'") and "host.log" in second
    assert hint.startswith("Nothing was installed for this ComfyUI yet: python quickstart.py test")
    assert last and set(last) <= {"    and so on", "    "} and "\x1b" not in str(caught.value)


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


def test_the_pip_host_gets_its_own_command_and_no_foreign_options(tmp_path, monkeypatch):
    monkeypatch.setenv("COMFYUI_PORT", "1")
    process = HostProcess(pip_host(), BaseDirectory.make(tmp_path), cpu=False)
    assert "COMFYUI_PORT" not in process.process_variables()
    assert process.command()[1:3] == ["-m", "comfy.cmd.main"] and "--cpu" not in process.command()


def test_a_taken_port_is_replaced_by_a_free_one():
    import socket
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert free_port(taken.getsockname()[1]) != taken.getsockname()[1]
