"""Pictures that no stock node makes."""
import torch


def nan(probe):
    """An IMAGE with one pixel that is not a number."""
    picture = torch.rand(1, 64, 64, 3)
    picture[0, 5, 5, 1] = float("nan")
    return {"outputs": (picture,)}


def channels(probe):
    """a: IMAGE; arguments: channels → the picture with 1 or 4 channels."""
    rgb = probe.a[..., :3]
    made = rgb.mean(-1, keepdim=True) if probe.arguments["channels"] == 1 else torch.cat([rgb, torch.ones_like(rgb[..., :1])], dim=-1)
    return {"outputs": (made,)}
