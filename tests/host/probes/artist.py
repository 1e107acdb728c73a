"""Photographs of drawn people whose identity is known, and a CLIP vision model, for the nodes that judge pictures."""
import numpy as np
import torch


def photographs(probe):
    """arguments: shots [[person, shot], …], blur: numbers of pictures to blur, blank: numbers to leave without a face, size → IMAGE."""
    people, portrait, shot = (probe.module(f"portrait_world.{name}") for name in ("world.people", "drawing.portrait", "world.portrayal"))
    a, pictures = probe.arguments, []
    for who, number in a["shots"]:
        drawn = portrait.render(people.person("validation", who), shot.photograph(np.random.default_rng([who, number])), a.get("size", 256))
        pictures.append(torch.from_numpy(drawn.astype(np.float32) / 255))
    batch = torch.stack(pictures)
    for number in a.get("blur", ()):
        small = torch.nn.functional.interpolate(batch[number][None].permute(0, 3, 1, 2), size=24, mode="area")
        batch[number] = torch.nn.functional.interpolate(small, size=batch.shape[1:3], mode="bicubic")[0].permute(1, 2, 0).clamp(0, 1)
    for number in a.get("blank", ()):
        batch[number] = 0.4
    return {"outputs": (batch,)}


def listed(probe):
    """a: IMAGE; arguments: sizes [[height, width], …] or none, texts → its pictures as a list, cut to these sizes, and a list of texts."""
    pictures = [picture[None] for picture in probe.a]
    for number, (height, width) in enumerate(probe.arguments.get("sizes", ())):
        pictures[number] = pictures[number][:, :height, :width]
    return {"outputs": (pictures, probe.arguments.get("texts", []))}


def clip_vision(probe):
    """arguments: width → a stand-in with the one call of the host's CLIP_VISION that a score needs; real ones are hundreds of megabytes."""

    class Vision:
        def encode_image(self, image):
            generator = torch.Generator().manual_seed(int(image.mean() * 1e6))
            return {"image_embeds": torch.randn(1, probe.arguments["width"], generator=generator)}

    return {"outputs": (Vision(),)}


def shape(probe):
    """a: IMAGE → its shape."""
    return list(probe.a.shape)


def values(probe):
    """a: a number or a text → itself."""
    return probe.a


def described(probe):
    """a: Identity → what its file says of it."""
    meta = probe.a.metadata
    return {"family": probe.a.family.name, "trigger": probe.a.trigger, "config": dict(meta.config), "consent": meta.consent, "base_hash": meta.base_hash}
