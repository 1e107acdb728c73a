"""``idea-engine convert-faceclip``: the published FaceCLIP encoder as a safetensors file."""
from __future__ import annotations

import argparse

from idea_engine.faceclip import convert

NAME = "convert-faceclip"
SUMMARY = "turn the published FaceCLIP encoder into a safetensors file, which holds nothing but tensors"
EPILOG = """\
example:
  idea-engine convert-faceclip face_clip_encoder.pt models/faceclip/faceclip.safetensors

The weights are published by ByteDance under CC BY-NC 4.0: no commercial use.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    convert.add_arguments(parser)


def run(options: argparse.Namespace) -> int:
    print(convert.run(options))
    return 0
