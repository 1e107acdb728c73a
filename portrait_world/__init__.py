"""The Portrait World: drawn people, a small model that knows some of them by name, and the networks that judge likeness.

The data flow is the layout: world (people, their portrayals, captions) → drawing → train (dataset, every network) → networks →
pipeline (diffusers) or comfy_model (ComfyUI) → judging and trials. Importing this package imports nothing heavy and never
ComfyUI.
"""
