"""A ComfyUI that has changed is met with one sentence, where the pack is applied, and not with an error from within."""
from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import Iterator

from ...idea_engine.errors import IdeaError, UnsupportedHostError
from .paths import host_version


@contextmanager
def understood(doing: str, expected: str) -> Iterator[None]:
    """While open, what a changed host raises becomes a sentence; our own sentences pass.

    Args:
        doing: what the host does in another way, 'cuts prompts'. expected: what is understood, in words.

    Raises:
        UnsupportedHostError: anything but our own errors and the host's interrupt was raised.
    """
    try:
        yield
    except (AttributeError, ImportError, IndexError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, IdeaError):
            raise
        logging.getLogger(__name__).debug("What a changed host has raised", exc_info=True)
        raise UnsupportedHostError(
            f"ComfyUI {host_version()} {doing} in a way that this version of ID-EA does not understand ({type(error).__name__}: {str(error)[:200]}); "
            f"expected {expected}. Update ID-EA, or use a ComfyUI that its README names as tested."
        ) from error
