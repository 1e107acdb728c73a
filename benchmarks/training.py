"""What a training step costs: seconds, and memory beside the models.

For each host, recipe, picture size and batch size, in a fresh process each (memory once taken is not always given back): the pack's own
training loop on the host's MODEL, CLIP and VAE, as Train Identity runs it. The UNet has SD1.5's widths with half its levels and random
weights (see `inside/models.py`); the text encoder has full size, the autoencoder is a small one. `seconds per step` is the median over
`--steps` steps after one that is not counted; on the CPU by the process's own clock, with one thread, so that other programs disturb less, on a
GPU by the wall's. `memory` is the process's peak resident memory during training over that right before it, with all
weights loaded and read; on a GPU the peak of PyTorch's tensors over that right before.

    python quickstart.py run python benchmarks/training.py [--json FILE]
"""
import sys

from fresh_host import arguments, bench, found_hosts
from result import print_table, write_json

RECIPES = ("fast", "paper", "released")
SIZES = ((256, 1), (256, 4), (512, 1), (512, 4))  # pixels, batch


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--pixels", type=int, choices=(256, 512), help="only this size; default: both")
    parser.add_argument("--batch", type=int, choices=(1, 4), help="only this batch size; default: both")
    parser.add_argument("--steps", type=int, default=3, help="counted steps of each training (default: %(default)s)")
    options = parser.parse_args()
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
