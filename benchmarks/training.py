"""What a training step costs against the released script's, on the same models.

Our step (the loop of `idea_engine/training/loop.py`, recipe `fast`, on diffusers) and the released script's (`tests/support/released_reference.py`) take
turns in one process on one pipeline with random weights at Stable Diffusion's true sizes: the same pictures, batch, resolution and precision.
`time_ratio` is the median of ours over the median of theirs; on the CPU by the process's own clock, with one thread, so that other programs
disturb less, on a GPU by the wall's. The released step encodes the pictures anew, which ours does once before the first step.

`memory_ratio` is the peak beside the loaded models, ours over theirs, each in a fresh process with two steps: of resident memory on the CPU
(freed memory is given back at once there), of PyTorch's tensors on a GPU. Ours includes encoding the pictures. `memory_ratio_freed` compares
with a released step that does not keep its graph (the script does, with `retain_graph=True`: two steps' graphs are alive at once). The script knows
one text encoder, so with SDXL there is our step alone.

Goal: time_ratio ≤ 0.5, memory_ratio ≤ 0.6.

    python quickstart.py run python benchmarks/training.py [--json FILE]
    python quickstart.py run python benchmarks/training.py --shape sd15 --device cuda --dtype float16 --pixels 512 --batch 8 --rounds 20

With `--hosts`: seconds and memory of our step alone, inside each ComfyUI that is found, by recipe, picture size and batch size, in a fresh
process each. The UNet there has SD1.5's widths with half its levels and random weights (see `inside/models.py`); the text encoder has full size,
the autoencoder is a small one. `seconds per step` is the median over `--steps` steps after one that is not counted.
"""
import json
import os
import statistics
import subprocess
import sys

from fresh_host import HERE, arguments, bench, found_hosts
from result import print_table, write_json
from training_case import CASES, add_options

RECIPES = ("fast", "paper", "released")
SIZES = ((256, 1), (256, 4), (512, 1), (512, 4))  # pixels, batch
# The C library then gives every larger block back as soon as it is freed, so that resident memory is what is in use.
_EXACT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--hosts", action="store_true", help="our step alone, inside the hosts, instead of the comparison")
    parser.add_argument("--only", choices=CASES, nargs="+", default=CASES, help="only these parts of the comparison")
    parser.add_argument("--steps", type=int, default=3, help="with --hosts: counted steps of each training (default: %(default)s)")
    add_options(parser)
    parser.set_defaults(pixels=None, batch=None)
    options = parser.parse_args()
    (in_hosts if options.hosts else compare)(options)


def compare(options) -> None:
    options.pixels, options.batch = options.pixels or 256, options.batch or 4
    cases = [case for case in options.only if not (options.shape.startswith("sdxl") and case.startswith("released"))]
    found = {case: run_case(case, options) for case in cases}
    result: dict = {}
    if "time" in found:
        seconds = {name: statistics.median(values) for name, values in found["time"]["seconds"].items()}
        result.update(seconds=seconds, all_seconds=found["time"]["seconds"], parts=found["time"]["parts"])
        if "released" in seconds:
            result["time_ratio"] = seconds["ours"] / seconds["released"]
    memory = {case: found[case]["memory_mb"] for case in found if case != "time"}
    for name, other in (("memory_ratio", "released"), ("memory_ratio_freed", "released-freed")):
        if "ours" in memory and other in memory:
            result[name] = memory["ours"] / memory[other]
    setting = {name: getattr(options, name) for name in ("shape", "device", "dtype", "pixels", "batch", "rounds", "recipe")}
    result.update(memory_mb=memory, weights_mb=max((found[case]["weights_mb"] for case in memory), default=None), **setting)
    rows = [[case, result.get("seconds", {}).get(case, ""), f"{memory[case]:.0f}" if case in memory else ""] for case in CASES[1:]]
    print_table(["step", "seconds", "memory MB"], rows)
    for name in ("time_ratio", "memory_ratio", "memory_ratio_freed"):
        if name in result:
            print(f"{name}: {result[name]:.3f}")
    write_json(options.json, result)


def run_case(case: str, options) -> dict:
    names = ("shape", "device", "dtype", "pixels", "batch", "rounds", "recipe")
    chosen = [part for name in names for part in (f"--{name}", str(getattr(options, name)))]
    variables = {**os.environ, **({} if case == "time" else _EXACT)}
    done = subprocess.run([sys.executable, str(HERE / "training_case.py"), case, *chosen], env=variables, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"The case {case} failed.")
    print(f"{case}: {done.stdout.strip()}", file=sys.stderr)
    return json.loads(done.stdout)


def in_hosts(options) -> None:
    measured: dict[str, list[dict]] = {}
    for host in found_hosts(options.host):
        for pixels, batch in SIZES:
            if options.pixels not in (None, pixels) or options.batch not in (None, batch):
                continue
            for recipe in RECIPES:
                case = measure(host, recipe, pixels, batch, options.steps)
                measured.setdefault(host.id, []).append(case)
                print(f"{host.id}: {case}", file=sys.stderr)  # the whole takes an hour on two cores
    print_table(
        ["host", "pixels", "batch", "recipe", "seconds per step", "memory MB"],
        [[name, m["pixels"], m["batch"], m["recipe"], m["seconds_per_step"], f"{m['memory_mb']:.0f}"] for name, rows in measured.items() for m in rows],
    )
    write_json(options.json, {"steps": options.steps, "hosts": measured})


def measure(host, recipe: str, pixels: int, batch: int, steps: int) -> dict:
    with bench(host) as running:
        return running.measure("training:measure", recipe=recipe, pixels=pixels, batch=batch, steps=steps)


if __name__ == "__main__":
    main()
