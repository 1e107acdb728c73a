"""Patches that ``torch.compile`` leaves alone."""
from __future__ import annotations

from functools import wraps
from typing import Callable

import torch


def uncompiled(method: Callable) -> Callable:
    """A method that runs as it is written inside a compiled UNet.

    Our patches look at which objects they are given and keep what they have found out: compiled, they would be compiled anew for every
    prompt, or, worse, not anew. The compiler itself is not imported before it is used, for that takes seconds.
    """

    @wraps(method)
    def run(self, *args):
        if torch.compiler.is_compiling():
            return torch.compiler.disable(method)(self, *args)
        return method(self, *args)

    return run
