"""The drawing: a person and a portrayal → pixels, deterministic, at any resolution."""
