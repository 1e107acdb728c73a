"""The published checkpoint → one safetensors file, which can hold nothing but tensors and tells its own sizes."""
from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from ..errors import FaceCLIPFileError, IdeaError
from ..files.atomic_write import atomic_write
from ..files.file_size import shown_size
from .checkpoint import LICENCE, checked, read
from .config import CONFIG_KEY, to_json

PRECISIONS = ("bf16", "fp16", "fp32")


@dataclass(frozen=True)
class Report:
    """What was converted.

    Attributes:
        target: the file that was written. tensors, parameters: how many are in it. bytes: its size. encoders: which joint encoders.
    """

    target: Path
    tensors: int
    parameters: int
    bytes: int
    encoders: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.target}: {self.tensors} tensors, {self.parameters / 1e6:.1f} million values, {shown_size(self.bytes)}, "
            f"encoders {' and '.join(self.encoders)}. {LICENCE}."
        )


def convert(source: Path, target: Path, precision: str = "bf16") -> Report:
    """Read ``source``, check every key, write ``target`` whole or not at all.

    Args:
        source: ``face_clip_encoder.pt``, or a file this function wrote.
        target: a ``.safetensors`` file; an existing one is replaced.
        precision: of the floating tensors, one of PRECISIONS.

    Raises:
        FaceCLIPFileError: the source cannot be read or is no FaceCLIP encoder, or the target cannot be written.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if target.suffix != ".safetensors":
        raise FaceCLIPFileError(f"The target is named {target.name}, but a safetensors file is written: give it the ending .safetensors.")
    if precision not in PRECISIONS:
        raise FaceCLIPFileError(f"There is no precision {precision}: choose {', '.join(PRECISIONS)}.")
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    loaded, told = read(source)
    tensors, configs = checked(loaded, told)
    stored = {key: value.to(dtype if value.is_floating_point() else value.dtype, copy=True, memory_format=torch.contiguous_format)
              for key, value in tensors.items()}
    del loaded, tensors  # they lie in the source's own bytes, and Windows does not replace a file that anybody looks into
    header = {CONFIG_KEY: to_json(configs), "idea.licence": LICENCE, "modelspec.title": "FaceCLIP encoder", "modelspec.license": "CC BY-NC 4.0"}
    try:
        atomic_write(target, lambda temporary: save_file(stored, str(temporary), metadata=header))
    except (OSError, SafetensorError) as error:
        raise FaceCLIPFileError(f"{target} cannot be written ({error}). Choose another target, or make room on the disk.") from error
    parameters = sum(value.numel() for value in stored.values())
    return Report(target, len(stored), parameters, target.stat().st_size, tuple(configs))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``idea-engine convert-faceclip``."""
    parser.add_argument("source", type=Path, help="the published face_clip_encoder.pt")
    parser.add_argument("target", type=Path, help="the .safetensors file to write, such as models/faceclip/faceclip.safetensors")
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16", help="of the written weights; they are published in bf16")


def run(options: argparse.Namespace) -> str:
    """What ``idea-engine convert-faceclip`` does; returns what it has to say."""
    return str(convert(options.source, options.target, options.precision))


def main() -> None:
    """``python -m idea_engine.faceclip.convert`` in the pack's folder, where ComfyUI's registry leaves out the command line."""
    parser = argparse.ArgumentParser("python -m idea_engine.faceclip.convert", description="The published FaceCLIP encoder as a safetensors file.")
    add_arguments(parser)
    try:
        print(run(parser.parse_args()))
    except IdeaError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
