"""Stable Diffusion 2.1 at its true size, with random weights, through a real ComfyUI: does it finish, and in how much memory?

The checkpoint (865 M UNet, ViT-H, 84 M autoencoder) is written to a temporary folder, loaded by the host's own CheckpointLoaderSimple, trained
on for a few steps of recipe `fast`, sampled from with the identity (cfg 7), and deleted. Seconds are the process's own CPU time. `peak` is the
host process's resident memory, or on a GPU PyTorch's; `beside` is what it grew by during training and during sampling.

    python quickstart.py run python benchmarks/true_size.py [--json FILE]
"""
import json
import tempfile
from pathlib import Path

from fresh_host import HERE, PACK_NAME, ROOT, arguments, found_hosts, started
from launcher.client import Client
from result import print_table, write_json
from true_checkpoint import make


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--pixels", type=int, default=512, help="side of the picture (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=1, help="pictures a training step (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="idea-benchmark-") as folder:
        checkpoint = make(Path(folder) / "sd21-true-size.safetensors")
        measured = {host.id: measure(host, checkpoint, options) for host in found_hosts(options.host)}
    print_table(
        ["host", "UNet M", "weights MB", "training peak MB", "beside", "sampling peak MB", "beside", "s/training step", "s/sampling step"],
        [[name, round(m["unet_parameters"] / 1e6), *(round(m[key]) for key in ("weights_mb", "training_peak_mb", "training_memory_mb",
          "sampling_peak_mb", "sampling_memory_mb")), max(m["training_step_seconds"]), m["sampling_step_seconds"]] for name, m in measured.items()],
    )
    write_json(options.json, {"pixels": options.pixels, "batch": options.batch, "hosts": measured})


def measure(host, checkpoint: Path, options) -> dict:
    with started(host, {PACK_NAME: ROOT, "benchmarks": HERE / "inside"}) as process:
        values = dict(pixels=options.pixels, batch=options.batch, training_steps=3, sampling_steps=2, threads=options.threads)
        prompt = {
            "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": process.base.add_checkpoint(checkpoint)}},
            "2": {"class_type": "BenchmarkRun", "inputs": {
                "function": "true_size:measure", "arguments": json.dumps(values), "model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2]}},
        }
        return json.loads(Client(process.address).run(prompt, timeout=3600).outputs["2"]["text"][0])


if __name__ == "__main__":
    main()
