"""Which family a MODEL and a CLIP belong to, seen from their modules, never from a name."""
from __future__ import annotations

from torch import nn

from ...idea_engine.applying.applied import check_fits
from ...idea_engine.backends.family import ModelFamily, family_of
from ...idea_engine.errors import FamilyMismatchError, UnsupportedModelError
from ...idea_engine.identity.identity import Identity

SUPPORTED = "Stable Diffusion 1.x, Stable Diffusion 2.x (ε and v prediction) and SDXL"
_KNOWN_ENCODERS = ("clip_l", "clip_g", "clip_h")


def clip_encoders(clip) -> dict[str, nn.Module]:
    """Encoder key → the host's ``SDClipModel`` of it, in the family's order.

    Raises:
        UnsupportedModelError: the CLIP holds text encoders of no supported family (T5, Llama, …).
    """
    holder = clip.cond_stage_model
    found = {name: module for name, module in holder.named_children() if hasattr(module, "transformer")}
    if not found or set(found) - set(_KNOWN_ENCODERS) or family_of(dict.fromkeys(found, 0)) is None:
        raise UnsupportedModelError(
            f"The CLIP holds the text encoders {', '.join(found) or 'of an unknown kind'}, which belong to no supported family. "
            f"Supported are {SUPPORTED}; load such a checkpoint."
        )
    return {key: found[key] for key in _KNOWN_ENCODERS if key in found}


def clip_family(clip) -> ModelFamily:
    """The family of a CLIP; see :func:`clip_encoders` for what it raises."""
    widths = {key: module.transformer.get_input_embeddings().weight.shape[1] for key, module in clip_encoders(clip).items()}
    return family_of(widths)


def cross_attention_blocks(unet: nn.Module) -> dict[tuple[str, int, int], tuple[str, nn.Module]]:
    """(stage, index, depth) as the host's patches name a block → its path below ``diffusion_model`` and module, in run order."""
    stages = (("input", "input_blocks", unet.input_blocks), ("middle", "middle_block", [unet.middle_block]), ("output", "output_blocks", unet.output_blocks))
    blocks = {}
    for stage, attribute, sequence in stages:
        for index, layers in enumerate(sequence):
            for position, layer in enumerate(layers):
                for depth, block in enumerate(getattr(layer, "transformer_blocks", ())):
                    middle = attribute if stage == "middle" else f"{attribute}.{index}"
                    blocks[stage, index, depth] = (f"{middle}.{position}.transformer_blocks.{depth}", block)
    return blocks


def cross_attention_scales(unet: nn.Module) -> tuple[int, ...]:
    """How many times coarser than the latent the grid of each of :func:`cross_attention_blocks` is, in run order."""
    after = []  # each input block's scale; the output blocks go through them backwards
    for layers in unet.input_blocks:
        halves = any(type(layer).__name__ == "Downsample" for layer in layers)
        after.append((after[-1] if after else 1) * (2 if halves else 1))
    scale = {"input": lambda index: after[index], "middle": lambda index: after[-1], "output": lambda index: after[-1 - index]}
    return tuple(scale[stage](index) for stage, index, _ in cross_attention_blocks(unet))


def check_model(model, family: ModelFamily) -> nn.Module:
    """The UNet inside a MODEL that reads what ``family``'s encoders give.

    Raises:
        UnsupportedModelError: the MODEL is no such UNet.
        FamilyMismatchError: MODEL and CLIP are of different families.
    """
    unet = getattr(model.model, "diffusion_model", None)
    if not all(hasattr(unet, name) for name in ("input_blocks", "middle_block", "output_blocks")):
        raise UnsupportedModelError(
            f"The MODEL is a {type(model.model).__name__}, which has no UNet with cross-attention. Supported are {SUPPORTED}; load such a checkpoint."
        )
    blocks = cross_attention_blocks(unet)
    widths = {block.attn2.to_k.weight.shape[1] for _, block in blocks.values() if getattr(block, "attn2", None) is not None}
    if widths != {family.context_width}:
        raise FamilyMismatchError(
            f"The MODEL reads text features of width {', '.join(map(str, sorted(widths))) or 'none'}, but the CLIP is {family.describe()} "
            f"and gives {family.context_width}. Connect MODEL and CLIP of one checkpoint; supported are {SUPPORTED}."
        )
    return unet


def check_identity(identity: Identity, family: ModelFamily, unet: nn.Module) -> None:
    """Raises: FamilyMismatchError: ``identity`` was made for another family than the connected CLIP's, or for another UNet of it."""
    check_fits(identity, family, [tuple(block.attn2.to_k.weight.shape) for _, block in cross_attention_blocks(unet).values()])
