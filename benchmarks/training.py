"""What a training step costs: seconds, and memory beside the models.

For each host, recipe, picture size and batch size, in a fresh process each (memory once taken is not always given back): the pack's own
training loop on the host's MODEL, CLIP and VAE, as Train Identity runs it. The UNet has SD1.5's widths with half its levels and random
weights (see `inside/models.py`); the text encoder has full size, the autoencoder is a small one. `seconds per step` is the median over
`--steps` steps after one that is not counted. `memory` is the process's peak resident memory during training over that right before it, with all
weights loaded and read; on a GPU the peak of PyTorch's tensors over that right before.

    python quickstart.py run python benchmarks/training.py [--json FILE]
"""
from fresh_host import arguments, bench, found_hosts
from result import print_table, write_json

RECIPES = ("fast", "paper", "released")
SIZES = ((256, 1), (256, 4), (512, 1), (512, 4))  # pixels, batch


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--steps", type=int, default=5, help="counted steps of each training (default: %(default)s)")
    options = parser.parse_args()
    measured = {host.id: [measure(host, recipe, *size, options.steps) for size in SIZES for recipe in RECIPES] for host in found_hosts(options.host)}
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
