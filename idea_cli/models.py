"""Diffusion models for the command line: a diffusers folder, one checkpoint file, or the Portrait World that ships with the project."""
from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

from idea_engine.errors import UnsupportedModelError
from idea_engine.files.foreign_text import shown

DEMO = "demo"
_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
_PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def model_arguments(parser: argparse.ArgumentParser) -> None:
    """``--model``, ``--device``, ``--precision``, ``--allow-download``."""
    group = parser.add_argument_group("the model")
    group.add_argument("--model", required=True, metavar="PATH", help=(
        "a Stable Diffusion 1.x, 2.x or XL model: a diffusers folder, a .safetensors checkpoint, or 'demo' for the small model of drawn "
        "portraits that ships with the project (nothing to download)"
    ))
    group.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps … (default: the fastest there is)")
    group.add_argument("--precision", choices=_PRECISIONS, default="auto", help="of the model's weights (default: 16 bit on CUDA, else 32)")
    group.add_argument("--allow-download", action="store_true", help="--model may be a name on the Hugging Face hub, which is then downloaded; without this nothing is")


@dataclass(frozen=True)
class Model:
    """A loaded pipeline.

    Attributes:
        pipe: the diffusers pipeline, on its device.
        names: what the textual anchor is averaged from.
        side: of the pictures it makes by default, in pixels.
        demo: whether it is the Portrait World.
    """

    pipe: object
    names: Sequence[str]
    side: int
    demo: bool


def load_model(options: argparse.Namespace, device=None) -> Model:
    """The model that the options name.

    Args:
        device: where to, instead of ``options.device``.

    Raises:
        UnsupportedModelError: it is not there, not readable, or of no supported family.
    """
    import torch

    from idea_engine.identity.anchor import celebrity_names

    device = torch.device(device if device is not None else _device(options.device))
    dtype = _dtype(options.precision, device)
    if options.model == DEMO:
        from portrait_world.pipeline import load_pipeline
        from portrait_world.world.people import names

        pipe, people = _needs_diffusers(load_pipeline), names()
    else:
        pipe, people = _needs_diffusers(lambda: _from_path(options.model, dtype, options.allow_download)), celebrity_names()
    pipe = pipe.to(device, dtype)
    pipe.set_progress_bar_config(leave=False)
    return Model(pipe, people, pipe.unet.config.sample_size * pipe.vae_scale_factor if options.model != DEMO else 128, options.model == DEMO)


def _needs_diffusers(load):
    try:
        return load()
    except ImportError as error:
        raise UnsupportedModelError(f"A Python package is missing ({error}). Install what the command line needs: pip install 'id-ea[cli]'.") from error


def _from_path(path: str, dtype, allow_download: bool):
    import diffusers

    place = Path(path)
    if not place.exists() and not allow_download:
        raise UnsupportedModelError(
            f"There is no model {path}. Give a diffusers folder, a .safetensors checkpoint or 'demo'; a name on the Hugging Face hub needs --allow-download."
        )
    options = {"torch_dtype": dtype, "local_files_only": not allow_download}
    try:
        if place.is_file():
            names = _keys(place)
            kind = diffusers.StableDiffusionXLPipeline if any(name.startswith("conditioner.") for name in names) else diffusers.StableDiffusionPipeline
            return kind.from_single_file(str(place), **options)
        if place.is_dir():
            kind = json.loads((place / "model_index.json").read_text(encoding="utf-8"))["_class_name"]
            if kind not in _PIPELINES:
                raise UnsupportedModelError(f"{path} is a {shown(kind, 60)}; supported are {' and '.join(_PIPELINES)}.")
            more = {"safety_checker": None, "requires_safety_checker": False} if kind == _PIPELINES[0] else {}
            return getattr(diffusers, kind).from_pretrained(path, **options, **more)
        return diffusers.DiffusionPipeline.from_pretrained(path, **options)
    except UnsupportedModelError:
        raise
    except Exception as error:  # diffusers, safetensors, the hub and json raise classes of their own
        mend = (
            "diffusers reads such a file only with the family's configuration, which it would download: allow it with --allow-download, or give a diffusers folder."
            if place.is_file() else "Expected a whole diffusers folder with a model_index.json and one folder for each part."
        )
        raise UnsupportedModelError(f"{path} cannot be loaded ({type(error).__name__}: {shown(error, 160)}). {mend}") from error


def _keys(path: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        return list(file.keys())


def _device(wanted: str) -> str:
    import torch

    if wanted != "auto":
        try:
            torch.empty(0, device=wanted)
        except (RuntimeError, AssertionError) as error:
            raise UnsupportedModelError(f"The device {wanted} cannot be used here ({str(error).splitlines()[0][:120]}). Leave out --device, or give cpu.") from error
        return wanted
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _dtype(precision: str, device):
    import torch

    if precision == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
