"""``python -m portrait_world.train <part|all>``: remake the assets, one part or all, resumable."""
from __future__ import annotations

import argparse
from importlib import import_module

import torch

# In the order in which they need one another: part → module with a ``train()``.
PARTS = {
    "autoencoder": "autoencoder", "decoder": "decoder", "recognizer": "recognizer", "judge": "judge", "attributes": "attributes",
    "detector": "detector", "text": "text", "denoiser": "denoiser", "export": "export",
    "faceclip": "faceclip", "enhancer": "enhancer",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m portrait_world.train", description=__doc__)
    parser.add_argument("part", choices=[*PARTS, "all"])
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for part in PARTS if options.part == "all" else [options.part]:
        import_module(f".{PARTS[part]}", __package__).train()


if __name__ == "__main__":
    main()
