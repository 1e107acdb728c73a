"""How much memory something takes at most, measured in a process of its own."""
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_CHILD = """
import re, resource, sys
sys.path.insert(0, {root!r})
import torch
torch.set_num_threads(1)
{setup}
def peak():
    if sys.platform == "linux":  # getrusage would count what the process had that started this one
        with open("/proc/self/status") as status:
            return int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read())[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
if sys.platform == "linux":
    with open("/proc/self/clear_refs", "w") as anew:  # importing may have taken more than is held now
        anew.write("5")
before = peak()
try:
    {act}
    said = ""
except Exception as error:
    said = type(error).__name__ + ": " + str(error)
print(peak() - before)
print(said)
"""


def peak_memory(setup: str, act: str) -> tuple[int, str]:
    """Bytes that the statement ``act`` adds to the peak of a fresh process after ``setup``, and the error it raised, or ''."""
    done = subprocess.run([sys.executable, "-c", _CHILD.format(root=str(ROOT), setup=setup, act=act)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    grown, said = done.stdout.split("\n", 1)
    return int(grown), said.strip()
