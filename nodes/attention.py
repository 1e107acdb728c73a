"""AttentionMap: where each word of a prompt looks."""
from __future__ import annotations

from .sockets import CATEGORY


class AttentionMap:
    """One labelled heat map per word of a prompt, over the picture."""

    DESCRIPTION = (
        "Shows where each word of a prompt looks in a picture, so that you see why a word is ignored: it looks nowhere, or somewhere else. "
        "Connect the sampler's latent, its MODEL and CLIP, and write the same prompt. One network call; nothing is changed."
    )
    CATEGORY = CATEGORY
    FUNCTION = "draw"
    RETURN_TYPES = ("IMAGE", "IMAGE", "STRING")
    RETURN_NAMES = ("sheet", "tiles", "report")
    OUTPUT_TOOLTIPS = (
        "All words on one sheet.", "One picture per word, in reading order.", "One line per word: its part of the attention that all words get.",
    )

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "The MODEL that the sampler has, behind Apply ID Adapter."}),
                "clip": ("CLIP", {"tooltip": "The CLIP that the prompt's text node has, behind Apply ID Adapter."}),
                "latent": ("LATENT", {"tooltip": "The finished picture: the sampler's latent. Of a batch the first picture is looked at."}),
                "text": ("STRING", {"default": "", "multiline": True, "tooltip": "The prompt, as in the text node."}),
                "percent": ("FLOAT", {"default": 0.4, "min": 0.0, "max": 1.0, "step": 0.05, "tooltip": (
                    "At which moment of the sampling to look: near 0 words place things, near 1 they draw details."
                )}),
                "noise": ("INT", {"default": 0, "min": 0, "max": 2**63 - 1, "tooltip": "Number of the noise that stands for that moment; another number gives a slightly different view."}),
            },
            "optional": {
                "image": ("IMAGE", {"tooltip": "The decoded picture, to be shown below the maps."}),
                "positive": ("CONDITIONING", {"tooltip": (
                    "The prompt as the sampler gets it, to look through its ControlNets. Not needed otherwise. Areas and masks are left out."
                )}),
            },
        }

    def draw(self, model, clip, latent, text, percent, noise, image=None, positive=None):
        from ..idea_engine.errors import PromptMismatchError
        from ..idea_engine.sheets.heat_map import contact_sheet, word_shares, word_tiles
        from .host.attention_watch import look, words_of
        from .host.family import check_model, clip_family
        from .host.images import check_images, to_image

        check_model(model, clip_family(clip))
        words = words_of(clip, text)
        if not words:
            raise PromptMismatchError("The Attention Map node has no word to look for. Write the prompt of the picture into text.")
        maps = look(model, clip, text, words, latent["samples"][:1], percent, noise, positive)
        picture = check_images(image, "Attention Map")[0].cpu() if image is not None else None
        labels = [word.label for word in words]
        tiles = word_tiles(maps, labels, picture)
        report = "\n".join(f"{label}: {100 * share:.1f} %" for label, share in zip(labels, word_shares(maps)))
        return (to_image(contact_sheet(tiles)), to_image(tiles), report)
