"""Naming large things by their content without reading all of it."""
from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Iterable

import torch
from torch import Tensor

_SAMPLES = 64  # values looked at in each tensor: two different checkpoints differ in far more


def fingerprint(named: Iterable[tuple[str, Tensor]]) -> str:
    """16 hexadecimal digits from the names, shapes and evenly spaced values of tensors; the same on every device and in every order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(named, key=lambda item: item[0]):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        if tensor.is_floating_point() and tensor.numel():
            flat = tensor.detach().reshape(-1)
            step = max(1, flat.numel() // _SAMPLES)
            digest.update(flat[::step][:_SAMPLES].to("cpu", torch.float32).numpy().tobytes())
    return digest.hexdigest()[:16]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content in hexadecimal digits, read piece by piece."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def content_key(*parts: object) -> str:
    """32 hexadecimal digits naming a computation by its inputs; tensors enter with every value, everything else by ``repr``.

    The parts must print the same in every process: no sets, whose order changes, and no objects that print their address.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(f"{tuple(part.shape)}".encode())
            digest.update(part.detach().to("cpu", torch.float32).contiguous().numpy())  # not copied: it may be a large photograph
        else:
            digest.update(repr(part).encode())
        digest.update(b"|")
    return digest.hexdigest()[:32]
