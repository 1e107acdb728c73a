"""safetensors files of unknown origin: their header first, then only the tensors that somebody asks for."""
from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Iterator, Mapping

import torch
from torch import Tensor

from .foreign_text import shown
from .pickle_file import ClaimedTensor, item_size

MAX_HEADER_BYTES = 16 << 20
MAX_TENSORS = 20_000
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32, "I16": torch.int16,
    "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}
_OTHERS = {"F8_E4M3": "torch.float8_e4m3fn", "F8_E5M2": "torch.float8_e5m2"}  # by their names: older PyTorch does not know them


@contextmanager
def open_tensors(path: Path) -> Iterator[tuple[dict[str, str], dict[str, ClaimedTensor]]]:
    """The metadata of a file and what it claims to hold, by name; tensors are read while the file is open, each into memory of its own.

    Raises:
        ValueError, OSError: the file is no safetensors file, is truncated, or has a header far larger than any that is needed.
    """
    from safetensors import SafetensorError, safe_open

    size = path.stat().st_size
    with path.open("rb") as file:
        begin = file.read(8)
    header = int.from_bytes(begin, "little")
    if len(begin) < 8:
        raise ValueError("it is empty" if not begin else f"it has {size} bytes")
    if header > MAX_HEADER_BYTES or header + 8 > size:
        raise ValueError(f"its header claims {header} of {size} bytes")
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            names = list(file.keys())
            if len(names) > MAX_TENSORS:
                raise ValueError(f"it holds {len(names)} tensors, expected at most {MAX_TENSORS}")
            yield dict(file.metadata() or {}), {name: _claimed(file, name) for name in names}
    except SafetensorError as error:
        raise ValueError(shown(error)) from error


def _claimed(file, name: str) -> ClaimedTensor:
    part = file.get_slice(name)
    shape, kind = tuple(part.get_shape()), part.get_dtype()
    dtype = _DTYPES.get(kind)
    count = 1
    for length in shape:
        count *= length
    return ClaimedTensor(shape, _OTHERS.get(kind, kind) if dtype is None else dtype, count * (1 if dtype is None else item_size(dtype)), partial(_read, file, name))


def _read(file, name: str) -> Tensor:
    return file.get_tensor(name).clone()  # what is read is a view of the mapped file


def describe(tensor: ClaimedTensor) -> str:
    """'torch.float32 (2, 768)', for messages."""
    return f"{tensor.dtype} {tensor.shape}" if tensor.shape else str(tensor.dtype)


def total_bytes(tensors: Mapping[str, ClaimedTensor]) -> int:
    """What all of them take in memory."""
    return sum(tensor.bytes for tensor in tensors.values())
