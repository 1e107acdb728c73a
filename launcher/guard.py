"""Runs a command, and kills it with all it started as soon as whoever asked for that is gone, however it went.

    python guard.py COMMAND …

The owner holds the other end of standard input and never writes to it; the system closes that end when the owner dies,
be it by a signal that no program can catch. The command's process id is printed, what the command prints goes to
standard error, and its exit code is this process's own. The owner starts this in a process group of its own, for what
ends a terminal's processes, and for `end_tree`.
"""
import os
import signal
import subprocess
import sys
import threading


def main(command: list[str]) -> int:
    """Run the command to its end; return its exit code, or 128 and the number of the signal that killed it."""
    signal.signal(signal.SIGTERM, lambda *_: None)  # it is meant for the command, whose end ends this
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, stderr=2)
    os.write(1, f"{process.pid}\n".encode())
    threading.Thread(target=_watch_owner, args=(process,), daemon=True).start()
    code = process.wait()
    return code if code >= 0 else 128 - code


def _watch_owner(process: subprocess.Popen):
    while os.read(0, 64):
        pass
    end_tree(process.pid if sys.platform == "win32" else os.getpgrp(), forcibly=True)


def end_tree(group: int, forcibly: bool):
    """End a process and every process it started: `group` is its process group, on Windows its process id."""
    if sys.platform == "win32":  # a process without a console takes no polite signal, so that this is always forcible
        subprocess.run(["taskkill", "/PID", str(group), "/T", "/F"], capture_output=True)
        return
    try:
        os.killpg(group, signal.SIGKILL if forcibly else signal.SIGTERM)
    except (ProcessLookupError, PermissionError):  # macOS answers 'not permitted' for a group of zombies
        pass


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
