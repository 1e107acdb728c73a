"""How well pictures show a prompt: the cosine of CLIP's two halves, where the graph has both."""
from __future__ import annotations

import torch
from torch import Tensor

from ...idea_engine.prompts.trigger import scene_of
from .prompt_tokens import applied_to

_PLAUSIBLE = (1e-3, 0.5)  # deviation of the values of a trained projection; CLIP's lie around 0.03


def prompt_scores(clip_vision, clip, prompt: str, pictures: Tensor) -> tuple[Tensor | None, str]:
    """Cosines (N,) and '', or None and a sentence that says why there are none.

    CLIP knows nobody and reads weights as words, so of the prompt only :func:`~idea_engine.prompts.trigger.scene_of` counts. Most checkpoints store no
    text projection, and the host then leaves that matrix as it was; a score made with it would mean nothing.
    """
    scene = scene_of(prompt, [applied.identity.trigger for applied in applied_to(clip)])
    if not scene:
        return None, "No prompt score: the prompt says nothing but who. Write in prompt of Identity Score what the pictures should show."
    encoders = [module for name, module in clip.cond_stage_model.named_children() if name in ("clip_g", "clip_l", "clip_h")]
    projection = getattr(encoders[-1].transformer, "text_projection", None) if encoders else None
    weight = None if projection is None else projection.weight.detach().float()
    known = weight is not None and torch.isfinite(weight).all() and _PLAUSIBLE[0] < float(weight.std()) < _PLAUSIBLE[1]
    if not known or torch.equal(weight.cpu(), torch.eye(len(weight))):
        return None, "No prompt score: this CLIP has no text projection. Load one with Load CLIP (clip_l.safetensors with a ViT-L vision model)."
    # One by one: the host has no limit of its own, and a batch of large pictures need not fit.
    seen = torch.cat([_embeds(clip_vision.encode_image(picture[None])).float().cpu() for picture in pictures])
    plain = scene.replace("(", "\\(").replace(")", "\\)")  # the host would take what is left of parentheses for weights
    text = clip.encode_from_tokens(clip.tokenize(plain), return_pooled=True)[1].float().cpu()
    if text.shape[-1] != seen.shape[-1]:
        return None, (
            f"No prompt score: the vision model gives {seen.shape[-1]} numbers, the text encoder {text.shape[-1]}. Connect two halves of one CLIP: "
            "ViT-L with clip_l, or bigG with SDXL's CLIP."
        )
    return torch.nn.functional.cosine_similarity(seen, text[:1], dim=-1), ""


def _embeds(output) -> Tensor:
    return output["image_embeds"]
