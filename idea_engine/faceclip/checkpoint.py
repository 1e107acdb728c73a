"""FaceCLIP files: the published ``face_clip_encoder.pt``, and the safetensors files that ``convert`` writes."""
from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import Mapping

import torch
from torch import Tensor

from ..errors import FaceCLIPFileError
from ..files.foreign_text import shown
from ..files.pickle_file import check_archive, is_pickle
from .config import CONFIG_KEY, ENCODERS, FaceCLIPConfig, check_sizes, from_json
from .sizes import name_of_one, sizes_of

LICENCE = "CC BY-NC 4.0: the published FaceCLIP weights are for non-commercial use only"
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_PREFIX = "model."
_LOGGED = 10_000  # keys of each kind that the log names
_NAMED = 8  # keys a sentence lists before it counts the rest
_MEND = "Take face_clip_encoder.pt of ByteDance/FaceCLIP, or a file converted from it (see the help page of Load FaceCLIP)."
_SHARED = 2  # how often tensors may share their bytes
_log = logging.getLogger(__name__)


def our_key(published: str) -> str:
    """'model.face_clip_l.ln_final.weight' → 'face_clip_l.ln_final.weight': our modules carry the published names."""
    return published[len(_PREFIX):] if published.startswith(_PREFIX) else published


def published_key(ours: str) -> str:
    """The other way."""
    return _PREFIX + ours


def layout(configs: Mapping[str, FaceCLIPConfig]) -> dict[str, tuple[int, ...]]:
    """Every key of encoders of these sizes and its shape; nothing is allocated."""
    from .encoder import FaceCLIPEncoder

    with torch.device("meta"):
        made = FaceCLIPEncoder(configs, words=lambda text: [])
    return {key: tuple(value.shape) for key, value in made.state_dict().items()}


def checked(
    state_dict: Mapping[str, Tensor], configs: Mapping[str, FaceCLIPConfig] | None = None
) -> tuple[dict[str, Tensor], dict[str, FaceCLIPConfig]]:
    """The tensors under our keys, and the sizes, when every key is there with its shape and none is left over.

    Args:
        state_dict: keys with or without ``model.``; those of one encoder may also lack its name.
        configs: sizes; None = what :func:`~.sizes.sizes_of` reads from the shapes.

    Raises:
        FaceCLIPFileError: otherwise; the sentence names the first keys that are missing, left over or of another shape, its attributes
            and the log name all.
    """
    tensors, strange = _under_our_names(state_dict, configs)
    sizes = dict(configs or sizes_of(tensors))
    check_sizes(sizes)
    if not any(name.startswith(tuple(f"{key}." for key in sizes)) for name in tensors):
        some = shown(", ".join(map(str, list(state_dict)[:3])), 120) or "nothing"
        begin = " or ".join(ENCODERS)
        raise FaceCLIPFileError(f"The file holds no FaceCLIP encoder: expected keys that begin with {begin}, found {some}. {_MEND}")
    wanted = layout(sizes)
    missing = [key for key in wanted if key not in tensors]
    unexpected = [key for key in tensors if key not in wanted] + strange
    misshapen = [f"{key} {tuple(tensors[key].shape)} instead of {wanted[key]}" for key in wanted
                 if key in tensors and tuple(tensors[key].shape) != wanted[key]]
    wrong = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    if any(wrong.values()):
        _log.error("FaceCLIP encoder: %s", "\n".join(f"{kind}: {shown(key)}" for kind, keys in wrong.items() for key in keys[:_LOGGED]))
        told = "; ".join(f"{len(keys)} {kind}: {_listed(keys)}" for kind, keys in wrong.items() if keys)
        raise FaceCLIPFileError(
            f"The file is not a FaceCLIP encoder of the expected size: keys {told}. {_MEND}", missing, unexpected, misshapen
        )
    return tensors, sizes


def _under_our_names(
    state_dict: Mapping[str, object], configs: Mapping[str, FaceCLIPConfig] | None
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors with their encoder's name in front, and what has no place: other things than tensors, keys that are there twice."""
    tensors: dict[str, Tensor] = {}
    strange = []
    for key, value in state_dict.items():
        if not isinstance(key, str):
            strange.append(f"{shown(key, 60)} (a key that is no text)")
        elif not isinstance(value, Tensor):
            strange.append(f"{shown(key, 60)} ({type(value).__name__}, no tensor)")
        elif our_key(key) in tensors:
            strange.append(f"{key} (there twice, with and without '{_PREFIX}')")
        else:
            tensors[our_key(key)] = value
    alone = name_of_one(tensors)
    if alone and configs and len(configs) == 1:
        (alone,) = configs
    return {f"{alone}.{key}" if alone else key: value for key, value in tensors.items()}, strange


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return shown(", ".join(shown(key, 80) for key in keys[:_NAMED]), 400) + more


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, FaceCLIPConfig] | None]:
    """A file's tensors, mapped rather than copied where possible, and the sizes it tells of itself (None = the published ones).

    Raises:
        FaceCLIPFileError: the file is missing, truncated, or holds anything besides tensors.
    """
    if not path.is_file():
        raise FaceCLIPFileError(f"There is no file {shown(path)}. Choose another one in Load FaceCLIP, or put it there.")
    try:
        if is_pickle(path):
            return _read_pickle(path), None
        from safetensors import safe_open

        with safe_open(str(path), framework="pt", device="cpu") as file:
            told = (file.metadata() or {}).get(CONFIG_KEY)
            return {key: file.get_tensor(key) for key in file.keys()}, from_json(told) if told else None
    except FaceCLIPFileError:
        raise
    except Exception as error:  # torch, pickle and safetensors each raise their own
        raise FaceCLIPFileError(
            f"{shown(path.name, 80)} cannot be read ({_first_line(error)}): it is empty, truncated or of another kind. {_MEND}"
        ) from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of ``torch.save``, mapped.

    Raises:
        ValueError: it is no table of tensors, or they claim more than the file holds.
    """
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        check_archive(archive, size)  # weights are stored as they are: an archive that unpacks to more was made for harm
    loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    loaded = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ValueError("it is no table of tensors")
    claimed = sum(value.numel() * value.element_size() for value in loaded.values())
    if claimed > _SHARED * size or any(value.layout != torch.strided or value.is_meta for value in loaded.values()):
        raise ValueError(f"its tensors claim {claimed / 1e6:.0f} MB, and the file has {size / 1e6:.0f}")
    return loaded


def _first_line(error: Exception) -> str:
    return shown((str(error).strip().splitlines() or [type(error).__name__])[0], 160)
