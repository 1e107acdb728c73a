"""Tiny real models for the engine's tests: built once, used read-only (training must leave them as they were; a test proves that)."""
from __future__ import annotations

import pytest
import torch

from tiny_pipelines import FAMILIES, tiny_pipeline

NAMES = ("brad pitt", "ann lee", "tom hanks", "emma stone", "bo")


@pytest.fixture(scope="session", params=FAMILIES)
def any_backend(request, tmp_path_factory):
    """A diffusers backend of each family in turn."""
    return _backend(request.param, tmp_path_factory)


@pytest.fixture(scope="session")
def backend(tmp_path_factory):
    """A diffusers backend of SD1.x shape."""
    return _backend("sd1", tmp_path_factory)


def _backend(family, tmp_path_factory):
    from idea_engine.backends.diffusers import DiffusersBackend

    return DiffusersBackend(tiny_pipeline(family, tmp_path_factory.mktemp(family)))


@pytest.fixture(scope="session")
def enhance():
    """backend → the untrained identity of one made-up face."""

    def make(backend, seed=0):
        from idea_engine.identity.anchor import compute_anchor
        from idea_engine.identity.enhanced import EnhancedIdentity

        face = torch.nn.functional.normalize(torch.randn(512, generator=torch.Generator().manual_seed(7)), dim=0)
        return EnhancedIdentity(backend.family, face, compute_anchor(backend, NAMES), seed=seed, recognizer="test", licence="none")

    return make


@pytest.fixture
def photo():
    """(72, 64, 3) random picture."""
    return torch.rand(72, 64, 3, generator=torch.Generator().manual_seed(3))
