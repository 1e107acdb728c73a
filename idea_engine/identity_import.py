"""Identities made by other tools: the CrossInit / ID-EA ``learned_embeds.bin``, A1111 and kohya embeddings."""
from __future__ import annotations

import re
from pathlib import Path
from typing import Mapping

import torch
from torch import Tensor

from .errors import IdentityFileError, TriggerError
from .file_size import shown_size
from .identity_file import MAX_TOKENS, family_of, load_identity
from .tokens import check_trigger
from .types import Identity, IdentityMetadata

MAX_PICKLE_BYTES = 64 << 20  # an embedding of 75 SDXL tokens has 0.6 MB
_ENCODER_OF_WIDTH = {768: "clip_l", 1024: "clip_h", 1280: "clip_g"}
_NUMBERED = re.compile(r"^(?P<name>.+)_v(?P<index>\d+)$")  # CrossInit: one key per token, 28017_v0, 28017_v1


def read_identity(path: Path | str) -> Identity:
    """Read any supported file: our own, or another tool's embedding (``.safetensors``, ``.bin``, ``.pt``).

    Foreign pickles are read with ``weights_only=True``, and only tensors of the expected shape are taken.

    Raises:
        IdentityFileError: the file is unsafe, damaged, or holds no embedding.
    """
    path = Path(path)
    if path.suffix in (".bin", ".pt"):
        return _identity_from(_read_pickle(path), path)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            ours = "idea.format_version" in (file.metadata() or {})
            names = list(file.keys())
            plain = not ours and len(names) <= 4 and path.stat().st_size <= MAX_PICKLE_BYTES
            tensors = {name: file.get_tensor(name) for name in names} if plain else {}
    except (SafetensorError, OSError, ValueError):
        return load_identity(path)  # says what is wrong with the file
    return _identity_from(tensors, path) if plain else load_identity(path)


def _read_pickle(path: Path) -> Mapping[str, object]:
    if not path.is_file():
        raise IdentityFileError(f"There is no file {path.name}; the Load Identity node lists the files of models/idea.")
    size = path.stat().st_size
    if size > MAX_PICKLE_BYTES:
        raise IdentityFileError(f"{path.name} has {shown_size(size)}, but an embedding has at most {shown_size(MAX_PICKLE_BYTES)}; it is another kind of file.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a hostile or broken pickle
        raise IdentityFileError(
            f"{path.name} could not be read as plain tensors, and running code from a file is refused. "
            f"Ask its author for a .safetensors file. ({str(error).splitlines()[0][:200]})"
        ) from error
    if not isinstance(content, Mapping):
        raise IdentityFileError(f"{path.name} holds a {type(content).__name__}, but a table of named tensors was expected.")
    return content


def _identity_from(content: Mapping[str, object], path: Path) -> Identity:
    """CrossInit (one key a token), A1111 (``string_to_param``), kohya (``emb_params`` or ``clip_l`` / ``clip_g``), diffusers ({name: rows})."""
    if isinstance(content.get("string_to_param"), Mapping):
        content = dict(content["string_to_param"])  # type: ignore[arg-type]
    rows = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    named = {key: _NUMBERED.match(key) for key in rows}
    if rows and all(named.values()) and len({m["name"] for m in named.values()}) == 1:
        order = sorted(rows, key=lambda key: int(named[key]["index"]))
        stem = named[order[0]]["name"]
        rows = {stem: torch.stack([_row(rows[key], key, path) for key in order])}
    else:
        stem = next(iter(rows), "") if len(rows) == 1 else path.stem
    tokens: dict[str, Tensor] = {}
    for key, value in rows.items():
        table = value[None] if value.ndim == 1 else value
        encoder = _ENCODER_OF_WIDTH.get(table.shape[-1]) if table.ndim == 2 else None
        if encoder is None or not value.is_floating_point() or not 1 <= table.shape[0] <= MAX_TOKENS or encoder in tokens:
            raise IdentityFileError(
                f"{path.name}: the tensor {key} {tuple(value.shape)} is no embedding; expected (n, 768), (n, 1024) or (n, 768) with (n, 1280)."
            )
        if not torch.isfinite(table).all():
            raise IdentityFileError(f"{path.name}: the tensor {key} holds values that are not finite.")
        tokens[encoder] = table.detach().float().clone()
    family = family_of({key: table.shape[1] for key, table in tokens.items()})
    if family is None or len({table.shape[0] for table in tokens.values()}) != 1:
        found = ", ".join(f"{key} {tuple(table.shape)}" for key, table in tokens.items()) or "no tensors"
        raise IdentityFileError(f"{path.name} holds {found}; expected clip_l (SD1.x), clip_h (SD2.x), or clip_l and clip_g of one length (SDXL).")
    return Identity(family, tokens, IdentityMetadata(trigger=_trigger_from(stem, path), method="imported", family=family.name))


def _row(value: Tensor, key: str, path: Path) -> Tensor:
    if value.ndim != 1:
        raise IdentityFileError(f"{path.name}: the tensor {key} is {tuple(value.shape)}, expected one row.")
    return value


def _trigger_from(stem: str, path: Path) -> str:
    """'<28017>' from the embedding's own name, or from the file's when that is of no use ('*' in A1111 files)."""
    for candidate in (stem, path.stem, "id"):
        word = re.sub(r"[^\w-]", "", candidate)
        try:
            return check_trigger(f"<{word}>")
        except TriggerError:
            continue
    return "<id>"
