"""Remakes every shipped asset: ``python -m portrait_world.train <part|all>``."""
