"""What the benchmarks measure on: a reduced Stable Diffusion 1.5 UNet of the host's own classes, and people who never were."""
from __future__ import annotations

import torch

from . import pack

# Half of SD1.5's levels and residual blocks at its true widths: 64 and 32 (at 512 px) positions a side with 320 and 640 channels, seven
# cross-attention blocks that read 768 features. Most of a real UNet's time goes into these two levels.
UNET = dict(
    image_size=32, in_channels=4, out_channels=4, model_channels=320, num_res_blocks=[1, 1], channel_mult=[1, 2], transformer_depth=[1, 1],
    transformer_depth_output=[1, 1, 1, 1], transformer_depth_middle=1, use_linear_in_transformer=False, context_dim=768,
    use_spatial_transformer=True, legacy=False, adm_in_channels=None, use_temporal_attention=False,
)


def reduced_unet():
    """A MODEL with random weights, float32 on the CPU and float16 on a GPU, as hosts load SD1.5."""
    import comfy.model_management as management
    import comfy.model_patcher
    import comfy.supported_models as supported

    class Reduced(supported.SD15):
        unet_config = UNET

    device = management.get_torch_device()
    dtype = torch.float32 if device.type == "cpu" else torch.float16
    config = Reduced(dict(UNET, dtype=dtype))
    if hasattr(config, "set_inference_dtype"):
        config.set_inference_dtype(dtype, None)
    model = config.get_model({}, "", device=management.unet_offload_device())
    fill(model.diffusion_model)
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=management.unet_offload_device())


def fill(module: torch.nn.Module) -> None:
    """Random weights that keep activations near unit variance; the host leaves its weights uninitialised."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.state_dict().items():
        if parameter.ndim <= 1:
            value = torch.full(parameter.shape, 1.0 if name.endswith("weight") else 0.0)
        else:
            value = torch.randn(parameter.shape, generator=generator) * parameter[0].numel() ** -0.5
        parameter.copy_(value)


def identity(clip, model, number: int, stages: int = 0):
    """A person as the recipe 'fast' leaves one: tokens, adapter, and keys and values for every block; the trigger is <personNUMBER>.

    With ``stages`` as the recipe 'sefi' does: tokens for every stage and nothing else.
    """
    types = pack("idea_engine.identity.identity")
    family = pack("nodes.host.family").clip_family(clip)
    blocks = len(pack("nodes.host.family").cross_attention_blocks(model.model.diffusion_model))
    generator, d, n = torch.Generator().manual_seed(number), family.context_width, 2

    def random(*shape, scale):
        return torch.randn(*shape, generator=generator) * scale

    if stages:
        tokens = lambda: {key: random(n, width, scale=0.03) for key, width in family.encoders.items()}  # noqa: E731
        metadata = types.IdentityMetadata(f"<person{number}>", "sefi", family.name)
        made = types.Identity(family, tokens(), metadata, stages=tuple(types.StageTokens(tokens(), tokens()) for _ in range(stages)))
        return pack("idea_engine.identity.operations").rounded(made)
    attention = {
        "in_proj_weight": random(3 * d, d, scale=d**-0.5), "in_proj_bias": torch.zeros(3 * d),
        "out_proj.weight": random(d, d, scale=d**-0.5), "out_proj.bias": torch.zeros(d),
    }
    made = types.Identity(
        family,
        tokens={key: random(n, width, scale=0.03) for key, width in family.encoders.items()},
        anchor={key: random(n, width, scale=0.03) for key, width in family.encoders.items()},
        adapter=types.AdapterWeights(random(n, d, scale=1.0), attention, 0.1, "tokens"),
        key_offsets={block: random(n, d, scale=0.1) for block in range(blocks)},
        value_offsets={block: random(n, d, scale=0.1) for block in range(blocks)},
        metadata=types.IdentityMetadata(f"<person{number}>", "fast", family.name),
    )
    return pack("idea_engine.identity.operations").rounded(made)  # as training leaves it


def face():
    """A FaceEmbedding that no recognizer made; it knows no photograph, :func:`face_mask` goes with it."""
    vector = torch.nn.functional.normalize(torch.randn(1, 512, generator=torch.Generator().manual_seed(0)), dim=1)
    nothing = torch.zeros(1, 4)
    return pack("idea_engine.faces.embedding").FaceEmbedding(
        vector, torch.ones(1), nothing, torch.zeros(1, 5, 2), torch.zeros(1, 112, 112, 3), (torch.ones(64, 64),), (0,), "made up", "none"
    )


def face_mask(pixels: int):
    """(pixels, pixels): a centred square of half the side is the face, so that recipes train as with masks of Face Embed."""
    mask, quarter = torch.zeros(pixels, pixels), pixels // 4
    mask[quarter : pixels - quarter, quarter : pixels - quarter] = 1.0
    return mask
