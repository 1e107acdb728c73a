"""Real hosts for the benchmarks: each measurement gets a process of its own, with a base directory of its own that is deleted afterwards."""
from __future__ import annotations

import argparse
import json
import signal
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Sequence

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.append(str(ROOT))  # for `launcher`; the hosts are other processes and do not inherit it

from launcher import hosts  # noqa: E402
from launcher.client import Client  # noqa: E402
from launcher.environment import Environment, prepare  # noqa: E402
from launcher.hosts import Host  # noqa: E402
from launcher.server import PACK_NAME, HostProcess  # noqa: E402
from launcher.session import session  # noqa: E402
from launcher.stand_ins import demo_checkpoint  # noqa: E402

_PATIENCE = 3600  # seconds one measurement may take


def arguments(description: str) -> argparse.ArgumentParser:
    """The options every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    parser.add_argument("--host", metavar="ID", help="measure on this host only, such as comfyui-0.3.64; default: every host that is found")
    return parser


def found_hosts(only: str | None = None) -> list[Host]:
    """Every ComfyUI the tests would run on, ready to start."""
    found = [*hosts.find_checkouts().found, *([hosts.pip_host()] if hosts.pip_host_is_possible() else [])]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a host and its folder are cleared away when a benchmark is stopped
    chosen = [host for host in found if only in (None, host.id)]
    if not chosen:
        sys.exit(f"There is no host {only or ''}; found: {', '.join(host.id for host in found) or 'none'}.")
    prepare(tuple(layer for host in chosen for layer in host.layers))
    return chosen


@contextmanager
def started(host: Host, packs: dict[str, Path], variables: dict[str, str] | None = None, cpu: bool | None = None,
            options: Sequence[str] = ()) -> Iterator[HostProcess]:
    """A host process with these node packs (folder name → source) and nothing else; on the GPU if there is one.

    Args:
        cpu: whether on the CPU in any case, or on the GPU.
        options: more of the host's own, such as --deterministic.
    """
    import torch

    environment = Environment(Path(sys.prefix))
    everything = {**environment.variables(), **(variables or {})}
    cpu = not torch.cuda.is_available() if cpu is None else cpu
    with session(host, packs=packs, environment=environment, variables=everything, cpu=cpu, options=options) as running:
        yield running.process


@dataclass(frozen=True)
class Bench:
    """A running host with the pack and `benchmarks/inside`."""

    process: HostProcess
    checkpoint: str

    def measure(self, function: str, **values):
        """Run `module:name` of `benchmarks/inside` in the host's executor with the demo checkpoint's CLIP and VAE; return its answer."""
        prompt = {
            "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": self.checkpoint}},
            "2": {"class_type": "BenchmarkRun",
                  "inputs": {"function": function, "arguments": json.dumps(values), "clip": ["1", 1], "vae": ["1", 2]}},
        }
        return json.loads(Client(self.process.address).run(prompt, timeout=_PATIENCE).outputs["2"]["text"][0])


@contextmanager
def bench(host: Host) -> Iterator[Bench]:
    """A fresh process of ``host``, ready to measure in."""
    checkpoint = demo_checkpoint(Environment(Path(sys.prefix)))
    with started(host, {PACK_NAME: ROOT, "benchmarks": HERE / "inside"}) as process:
        yield Bench(process, process.base.add_checkpoint(checkpoint))
