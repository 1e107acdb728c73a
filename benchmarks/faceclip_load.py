"""FaceCLIP's encoder at its true size (L/14 and bigG/14, 1,573 M values), with random weights: how fast it opens, and does it compute.

Writes a checkpoint as published (.pt, bf16), converts it, and opens both in turn, each time in a fresh process, until every page of the weights has
been read. Cold: the file has been put out of the system's memory before; Linux only. Then one face and one prompt are encoded in each
precision; a picture needs that twice, for the positive and the negative prompt. `peak` is the process's resident memory, which counts the pages of an
opened file. Everything lies in a temporary folder of 6.3 GB, which is deleted.

    python quickstart.py run python benchmarks/faceclip_load.py [--rounds N] [--json FILE]
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from result import print_table, write_json

ROOT = Path(__file__).resolve().parents[1]
PRECISIONS = ("bf16", "fp16", "fp32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="openings of each file, cold and warm (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made (default: the system's)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="idea-benchmark-", dir=options.folder) as folder:
        published, converted = Path(folder) / "face_clip_encoder.pt", Path(folder) / "faceclip.safetensors"
        inside("write", published)
        conversion = inside("convert", published, converted)
        opened = {(path.suffix, kind): [] for path in (published, converted) for kind in ("cold", "warm")}
        for _ in range(options.rounds):
            for path in (published, converted):
                for kind in ("cold", "warm"):
                    opened[path.suffix, kind].append(inside("open", path, kind)["seconds"])
        published.unlink()
        encoded = {precision: inside("encode", converted, precision) for precision in PRECISIONS}
    rows = [[suffix, kind, f"{statistics.median(times):.2f}", ", ".join(f"{value:.2f}" for value in times)] for (suffix, kind), times in opened.items()]
    print_table(["file", "cache", "median s to open", "each"], rows)
    print_table(["precision", "opened s", "encoded s", "peak MB", "finite", "cosine with fp32"],
                [[name, f"{m['open_seconds']:.1f}", f"{m['seconds']:.1f}", round(m["peak_mb"]), m["finite"], f"{cosine(m, encoded['fp32']):.4f}"]
                 for name, m in encoded.items()])
    print(f"conversion: {conversion['seconds']:.1f} s, peak {conversion['peak_mb']:.0f} MB")
    write_json(options.json, {"conversion": conversion, "open_seconds": {" ".join(key): value for key, value in opened.items()},
                              "encode": {name: {key: value for key, value in m.items() if key != "rows"} for name, m in encoded.items()}})


def cosine(one: dict, other: dict) -> float:
    dot = lambda a, b: sum(x * y for x, y in zip(a["rows"], b["rows"]))
    return dot(one, other) / (dot(one, one) * dot(other, other)) ** 0.5


def inside(task: str, *arguments) -> dict:
    """Run one of TASKS in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, __file__, "--inside", task, *map(str, arguments)], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def write(path: str) -> dict:
    import torch

    from idea_engine.faceclip.checkpoint import layout, published_key
    from idea_engine.faceclip.config import PUBLISHED

    shapes = layout(PUBLISHED)
    largest = max(torch.Size(shape).numel() for shape in shapes.values())
    pool = torch.randn(largest + 1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    state = {}
    for number, (key, shape) in enumerate(shapes.items()):
        if key.endswith("num_batches_tracked"):
            value = torch.tensor(0)
        elif len(shape) < 2:
            value = torch.full(shape, 0.0 if key.endswith(("bias", "running_mean")) else 1.0, dtype=torch.bfloat16)
        else:
            size = torch.Size(shape)
            fan_in = size.numel() // size[0]
            value = pool[number * 977 % 1000:][:size.numel()].view(size) * (0.02 if "embedding" in key or "pos_embed" in key else fan_in ** -0.5)
        state[published_key(key)] = value
    torch.save(state, path)
    return {}


def convert(source: str, target: str) -> dict:
    from idea_engine.faceclip import convert

    started = time.perf_counter()
    report = convert.convert(Path(source), Path(target))
    return {"seconds": time.perf_counter() - started, "peak_mb": peak_mb(), "bytes": report.bytes}


def open_(path: str, kind: str) -> dict:
    import torch

    from idea_engine.faceclip.checkpoint import read
    from idea_engine.faceclip.load import encoder_from_state_dict

    if kind == "cold":
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    started = time.perf_counter()
    tensors, configs = read(Path(path))
    encoder = encoder_from_state_dict(tensors, configs=configs)
    assert all(value.flatten()[::2048].float().sum().isfinite() for value in encoder.parameters())  # one value of every page of 4 kB
    assert next(encoder.parameters()).dtype == torch.bfloat16
    return {"seconds": time.perf_counter() - started, "peak_mb": peak_mb()}


def encode(path: str, precision: str) -> dict:
    import torch

    from idea_engine.faceclip.checkpoint import read
    from idea_engine.faceclip.load import encoder_from_state_dict

    started = time.perf_counter()
    tensors, configs = read(Path(path))
    encoder = encoder_from_state_dict(tensors, dtype={"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision], configs=configs)
    del tensors
    opened = time.perf_counter() - started
    face = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    started = time.perf_counter()
    with torch.no_grad():
        fused, pooled = encoder.encode(face, "a woman in a blue shirt on a desert plateau")
    seconds = time.perf_counter() - started
    assert fused.shape == (1, 77, encoder.width)
    return {"open_seconds": opened, "seconds": seconds, "peak_mb": peak_mb(), "finite": bool(fused.isfinite().all() and pooled.isfinite().all()),
            "rows": fused[0, :20].flatten().tolist()}


def peak_mb() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


TASKS = {"write": write, "convert": convert, "open": open_, "encode": encode}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        print(json.dumps(TASKS[sys.argv[2]](*sys.argv[3:])))
    else:
        main()
