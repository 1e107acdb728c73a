"""Diffusion models behind one small interface, see base.py."""
