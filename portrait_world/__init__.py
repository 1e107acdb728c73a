"""The Portrait World: drawn people, a small model that knows some of them by name, and the networks that judge likeness.

The data flow is the layout: people → shot → portrait (drawn) + captions → dataset → autoencoder, recognizer, judges,
text encoder, denoiser → pipeline (diffusers) or comfy_model (ComfyUI) → gates and benchmark. Importing this package
imports nothing heavy and never ComfyUI.
"""
