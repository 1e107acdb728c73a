"""Photographs → face embedding: the pack, its encoder, where a face is, how it lies, what is wrong with a photograph."""
