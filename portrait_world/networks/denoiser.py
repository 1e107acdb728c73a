"""The denoiser: one UNet in two dialects, ComfyUI's ``UNetModel`` and diffusers' ``UNet2DConditionModel``.

It is trained and stored under diffusers' key names; the
host's names are one map away, and both give the same numbers up to rounding (tested).
"""
from __future__ import annotations

from torch import Tensor

from .text_encoder import WIDTH as TEXT_WIDTH

CHANNELS = (64, 128)  # multiples of 32: the hosts' group norms have 32 groups
HEADS = 2
LATENT_SIZE = 16

# For diffusers. (``attention_head_dim`` is its historical name for the number of heads.)
DIFFUSERS_CONFIG = dict(
    sample_size=LATENT_SIZE, in_channels=4, out_channels=4, block_out_channels=CHANNELS, layers_per_block=1,
    down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    cross_attention_dim=TEXT_WIDTH, attention_head_dim=HEADS, norm_num_groups=32,
)

# For the hosts: a subclass of their SD15 takes these two.
HOST_CONFIG = dict(
    image_size=32, in_channels=4, out_channels=4, model_channels=CHANNELS[0], num_res_blocks=[1, 1], channel_mult=[1, 2],
    transformer_depth=[1, 1], transformer_depth_output=[1, 1, 1, 1], transformer_depth_middle=1,
    use_linear_in_transformer=False, context_dim=TEXT_WIDTH, use_spatial_transformer=True, legacy=False,
    adm_in_channels=None, use_temporal_attention=False,
)
HOST_EXTRA_CONFIG = dict(num_heads=HEADS, num_head_channels=-1)

_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}
# diffusers module → host module; resnets are renamed inside by _RESNET, attentions keep their inner names
_MODULES = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "down_blocks.0.resnets.0": "input_blocks.1.0", "down_blocks.0.attentions.0": "input_blocks.1.1",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "down_blocks.1.resnets.0": "input_blocks.3.0", "down_blocks.1.attentions.0": "input_blocks.3.1",
    "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1", "mid_block.resnets.1": "middle_block.2",
    "up_blocks.0.resnets.0": "output_blocks.0.0", "up_blocks.0.attentions.0": "output_blocks.0.1",
    "up_blocks.0.resnets.1": "output_blocks.1.0", "up_blocks.0.attentions.1": "output_blocks.1.1",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv",
    "up_blocks.1.resnets.0": "output_blocks.2.0", "up_blocks.1.attentions.0": "output_blocks.2.1",
    "up_blocks.1.resnets.1": "output_blocks.3.0", "up_blocks.1.attentions.1": "output_blocks.3.1",
}


def build():
    """A fresh diffusers UNet of this shape."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(**DIFFUSERS_CONFIG)


def host_key(key: str) -> str:
    """The host's name of a diffusers parameter.

    Raises:
        KeyError: a name that this UNet does not have.
    """
    for module in sorted(_MODULES, key=len, reverse=True):
        if key.startswith(module + "."):
            rest = key[len(module) + 1:]
            if ".resnets." in module:
                inner, parameter = rest.rsplit(".", 1)
                rest = f"{_RESNET[inner]}.{parameter}"
            return f"{_MODULES[module]}.{rest}"
    raise KeyError(key)


def host_state_dict(diffusers_state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under the host's names, without a prefix."""
    return {host_key(key): value for key, value in diffusers_state.items()}
