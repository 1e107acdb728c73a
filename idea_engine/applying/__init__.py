"""An identity at work on a model: what both worlds share, and how it acts on a diffusers pipeline."""
