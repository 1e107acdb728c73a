"""Identities made by other tools: the CrossInit / ID-EA ``learned_embeds.bin``, embeddings of A1111, kohya, diffusers and OneTrainer."""
from __future__ import annotations

import logging
import re
import zipfile
from pathlib import Path
from typing import Mapping

import torch
from torch import Tensor

from ..backends.family import family_of
from ..errors import IdentityFileError, TriggerError
from ..files.file_size import shown_size
from ..files.foreign_text import shown
from ..files.pickle_file import ClaimedTensor, RefusedProgramError, is_pickle, read_pickle
from ..files.tensor_file import describe, open_tensors
from ..prompts.trigger import check_trigger
from .file import MAX_TOKENS, check_file, check_values, load_identity
from .identity import Identity, IdentityMetadata

PICKLE_SUFFIXES = (".bin", ".pt")
MAX_PICKLE_BYTES = 64 << 20  # an embedding of 75 SDXL tokens has 0.6 MB
_MAX_KEYS = 4 * MAX_TOKENS
_ENCODER_OF_WIDTH = {768: "clip_l", 1024: "clip_h", 1280: "clip_g"}
# One key a token: 28017_v0, 28017_v1 (CrossInit); <anna>, <anna>_1 (diffusers).
_NUMBERED = re.compile(r"^(?P<name>.+)_v(?P<index>\d{1,4})$")
_CONTINUED = re.compile(r"^(?P<name>.+?)(?:_(?P<index>\d{1,4}))?$")
_FORMAT_KEYS = ("emb_params", "*", "clip_l", "clip_g", "clip_h", "string_to_param")  # the same in every file, so nobody's name
_OUTPUT = "_out"  # of OneTrainer: rows that replace the encoder's output, beside those that are its input
_log = logging.getLogger(__name__)


def read_identity(path: Path | str) -> Identity:
    """Read any supported file: our own, or another tool's embedding, a safetensors file or one of ``torch.save``; its content tells which.

    Foreign files are described first; only tensors of the expected shape are read, and nothing in a pickle is run.

    Raises:
        IdentityFileError: the file is unsafe, damaged, or holds no embedding.
    """
    path = Path(path)
    check_file(path)
    try:
        if is_pickle(path):
            return _identity_from(_read_pickle(path), path)
        with open_tensors(path) as (metadata, tensors):
            if "idea.format_version" not in metadata:
                return _identity_from(tensors, path)
    except (ValueError, OSError):
        if path.suffix.lower() in PICKLE_SUFFIXES:
            return _identity_from(_read_pickle(path), path)
    return load_identity(path)  # says what is wrong with the file


def _read_pickle(path: Path) -> Mapping[object, object]:
    name = shown(path.name)
    try:
        content = read_pickle(path, MAX_PICKLE_BYTES)
    except RefusedProgramError as error:
        raise IdentityFileError(
            f"{name} could not be read as plain tensors ({error}), and running code from a file is refused. Ask its author for a .safetensors file."
        ) from error
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise IdentityFileError(
            f"{name} is no embedding that can be read: {shown(error)}. It may be a broken download or another kind of file (an embedding has at most "
            f"{shown_size(MAX_PICKLE_BYTES)}): copy or download it again."
        ) from error
    if not isinstance(content, Mapping):
        raise IdentityFileError(f"{name} holds a {type(content).__name__}, but a table of named tensors was expected.")
    return content


def _identity_from(content: Mapping[object, object], path: Path) -> Identity:
    """CrossInit and diffusers (one key a token, or {name: rows}), A1111 (``string_to_param``), kohya and OneTrainer (``emb_params`` or ``clip_…``)."""
    name = shown(path.name)
    inner = content.get("string_to_param")
    if isinstance(inner, Mapping):
        content = inner
    claimed = {str(key): value for key, value in content.items() if isinstance(value, ClaimedTensor)}
    claimed = _without_outputs(claimed, path)
    if len(claimed) > _MAX_KEYS:
        raise IdentityFileError(f"{name} holds {len(claimed)} tensors and is no embedding. A checkpoint or a LoRA belongs into models/checkpoints or models/loras.")
    groups = _grouped(claimed)
    stem = next(iter(groups), "") if len(groups) == 1 and not isinstance(inner, Mapping) else ""
    tokens: dict[str, Tensor] = {}
    for key, members in groups.items():
        shapes = {tensor.shape if len(tensor.shape) == 2 else (1, *tensor.shape) for tensor in members}
        rows, width = sum(shape[0] for shape in shapes) if len(members) == 1 else len(members), {shape[-1] for shape in shapes}
        encoder = _ENCODER_OF_WIDTH.get(width.pop()) if len(width) == 1 and all(len(shape) == 2 for shape in shapes) else None
        floating = all(isinstance(tensor.dtype, torch.dtype) and tensor.dtype in _NUMBERS for tensor in members)
        if encoder is None or not floating or not 1 <= rows <= MAX_TOKENS or encoder in tokens:
            found = ", ".join(sorted({describe(tensor) for tensor in members})[:4])
            raise IdentityFileError(
                f"{name}: the tensor {shown(key, 80)} is {shown(found, 120)} and no embedding; expected numbers of 16 to 64 bits of the shape (n, 768), "
                f"(n, 1024) or (n, 768) with (n, 1280), n at most {MAX_TOKENS}. LoRAs and checkpoints have loaders of their own."
            )
        try:
            table = torch.cat([tensor.read().reshape(-1, tensor.shape[-1]).float() for tensor in members])
        except (ValueError, OSError, RuntimeError, zipfile.BadZipFile) as error:
            raise IdentityFileError(f"{name}: the tensor {shown(key, 80)} cannot be read ({shown(error)}). Copy or download the file again.") from error
        check_values(table, key, name)
        tokens[encoder] = table
    family = family_of({key: table.shape[1] for key, table in tokens.items()})
    if family is None or len({table.shape[0] for table in tokens.values()}) != 1:
        found = ", ".join(f"{key} {tuple(table.shape)}" for key, table in tokens.items()) or "no tensors"
        raise IdentityFileError(f"{name} holds {found}; expected clip_l (SD1.x), clip_h (SD2.x), or clip_l and clip_g of one length (SDXL).")
    return Identity(family, tokens, IdentityMetadata(trigger=_trigger_from(stem, path), method="imported", family=family.name))


_NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _without_outputs(claimed: dict[str, ClaimedTensor], path: Path) -> dict[str, ClaimedTensor]:
    """Without the rows that OneTrainer puts in place of the encoder's output, which an identity has no place for; said in the log."""
    outputs = [key for key in claimed if key.endswith(_OUTPUT) and _is_embedding(claimed[key])]
    inputs = {key: value for key, value in claimed.items() if key not in outputs}
    if outputs and not inputs:
        raise IdentityFileError(
            f"{shown(path.name)} holds only output embeddings ({shown(', '.join(outputs), 80)}), which replace what the text encoder gives; an identity needs "
            "its input. Train the embedding in OneTrainer with 'output embedding' turned off."
        )
    if outputs:
        _log.warning("%s: the output embeddings %s are left out; the person is read from the input embeddings.", shown(path.name), shown(", ".join(outputs)))
    return inputs


def _is_embedding(tensor: ClaimedTensor) -> bool:
    return bool(tensor.shape) and tensor.shape[-1] in _ENCODER_OF_WIDTH


def _grouped(claimed: dict[str, ClaimedTensor]) -> dict[str, list[ClaimedTensor]]:
    """Name → its tensors: the rows of one person in their order where every token has a key of its own, else each tensor by itself."""
    single = all(len(tensor.shape) == 1 or len(tensor.shape) == 2 and tensor.shape[0] == 1 for tensor in claimed.values())
    for pattern in (_NUMBERED, _CONTINUED):
        matches = {key: pattern.match(key) for key in claimed}
        if len(claimed) < 2 and pattern is _CONTINUED or not claimed or not single or not all(matches.values()):
            continue
        names = {match["name"] for match in matches.values()}
        numbers = sorted((int(match["index"] or 0), key) for key, match in matches.items())
        if len(names) == 1 and (pattern is _NUMBERED or [number for number, _ in numbers] == list(range(len(numbers)))):
            return {names.pop(): [claimed[key] for _, key in numbers]}
    return {key: [tensor] for key, tensor in claimed.items()}


def _trigger_from(stem: str, path: Path) -> str:
    """'<28017>' from the embedding's own name, or from the file's when that is of no use ('*' and 'emb_params' stand in every file)."""
    for candidate in ("" if stem in _FORMAT_KEYS else stem, path.stem, "id"):
        word = re.sub(r"[^\w-]", "", candidate)
        try:
            return check_trigger(f"<{word}>")
        except TriggerError:
            continue
    return "<id>"
