"""Where the words of a prompt look, seen through the host's public patch points while it runs its own network once."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...idea_engine.backends.attention_maps import attention_columns, grid_size, map_blocks
from ...idea_engine.errors import PromptMismatchError
from .carried import plain
from .family import clip_encoders, cross_attention_blocks, cross_attention_scales
from .mentions import match
from .places import find_places
from .prompt_tokens import applied_to
from .uncompiled import uncompiled

# What binds a conditioning to a part of the picture or of the sampling. The viewer asks for the whole picture at one moment.
_BOUNDS = ("area", "mask", "mask_strength", "set_area_to_bounds", "strength", "start_percent", "end_percent", "timestep_start", "timestep_end")


@dataclass(frozen=True)
class Word:
    """A word of a prompt: as it is read, and the positions of its tokens in the text condition."""

    label: str
    positions: tuple[int, ...]


def words_of(clip, text: str) -> list[Word]:
    """The words of a prompt in reading order: a trigger is one word, punctuation is none."""
    key = next(iter(clip_encoders(clip)))
    tokenizer, letter = getattr(clip.tokenizer, key), key.removeprefix("clip_")
    pairs = clip.tokenize(text)
    owners = {position: place for place in find_places({letter: pairs[letter]}, applied_to(clip)) for position in place.positions}
    words: list[Word] = []
    pieces, begun = "", []
    position = -1
    for chunk in pairs[letter]:
        ended = False
        for token, *_ in chunk:
            position += 1
            if torch.is_tensor(token):
                place = owners.get(position)
                if place is None:  # a stock embedding: all its vectors are one word
                    if words and words[-1].label == "embedding" and words[-1].positions[-1] == position - 1:
                        words[-1] = Word("embedding", (*words[-1].positions, position))
                    else:
                        words.append(Word("embedding", (position,)))
                elif position == place.positions[0]:
                    words.append(Word(place.applied.identity.trigger, place.positions))
                continue
            ended = ended or token == tokenizer.end_token
            if ended or token == tokenizer.start_token:
                continue
            piece = tokenizer.inv_vocab[token]
            pieces, begun = pieces + piece.removesuffix("</w>"), [*begun, position]
            if piece.endswith("</w>"):
                if any(ch.isalnum() for ch in pieces):
                    words.append(Word(pieces, tuple(begun)))
                pieces, begun = "", []
    return words


def look(model, clip, text: str, words: list[Word], latent: Tensor, percent: float, seed: int, conditioning=None) -> Tensor:
    """The share of every pixel's attention that each word gets, averaged over heads and coarse blocks.

    Args:
        latent: (1, C, h, w), a picture of the sampler; noise is added to it as at ``percent`` of the sampling.
        conditioning: the prompt as a sampler gets it, with all its ControlNets; None encodes ``text`` here.

    Returns:
        (W, h, w) float32 on the CPU; with every position a word of its own they would sum to 1.

    Raises:
        PromptMismatchError: ``conditioning`` does not hold ``text``.
    """
    import comfy.model_management as management
    import comfy.sample
    import comfy.samplers

    context, pooled = clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)
    if conditioning is None:
        conditioning = [[context, {"pooled_output": pooled}]]
    conditioning = [[one, {name: value for name, value in more.items() if name not in _BOUNDS}] for one, more in conditioning]
    groups = torch.zeros(context.shape[1], len(words))
    for column, word in enumerate(words):
        groups[list(word.positions), column] = 1.0
    watch = _Watch(model.model.diffusion_model, context[0], groups, latent.shape[-2:])
    sampling = model.get_model_object("model_sampling")
    sigma = min(max(float(sampling.percent_to_sigma(percent)), float(sampling.sigma_min)), float(sampling.sigma_max))
    noise = comfy.sample.prepare_noise(latent, seed)
    # One step of one call; a guidance of 1 leaves the negative prompt out. The clone has no name here: an error's traceback would keep it beyond the
    # MODEL it was made of, and then the host takes the model for lost and collects all memory at every load.
    comfy.sample.sample_custom(
        watch.on(model), noise, 1.0, comfy.samplers.sampler_object("euler"), torch.tensor([sigma, 0.0]), conditioning, conditioning, latent,
        disable_pbar=True, seed=seed,
    )
    if not watch.pictures:
        raise PromptMismatchError(
            "The conditioning connected to positive does not hold the text of the Attention Map node. Write the very same prompt into both text "
            "fields and connect the same CLIP to both nodes, or leave positive unconnected."
        )
    management.throw_exception_if_processing_interrupted()
    return torch.stack(watch.pictures).mean(0).cpu()


class _Watch:
    """Two ``attn2_patch``es: the first sees the prompts as the host sends them, the last what every other patch has made of them."""

    def __init__(self, unet, rows: Tensor, groups: Tensor, size):
        """Args: rows: (L, d) of the encoded text. groups: (L, W), 1 where a position belongs to a word. size: (h, w) of the pictures."""
        self.rows, self.groups, self.size = rows, groups, tuple(size)
        numbered = list(enumerate(zip(cross_attention_blocks(unet).items(), cross_attention_scales(unet))))
        wanted = map_blocks([scale for _, (_, scale) in numbered])
        self.blocks = {key: (block.attn2, scale) for number, ((key, (_, block)), scale) in numbered if number in wanted}
        self.pictures: list[Tensor] = []
        self._context: Tensor | None = None
        self._columns: Tensor | None = None

    def on(self, model):
        """A clone of ``model`` that is watched."""
        clone = model.clone()
        patches = clone.model_options["transformer_options"].setdefault("patches", {})
        patches["attn2_patch"] = [self._first, *patches.get("attn2_patch", []), self._last]
        return clone

    def __deepcopy__(self, memo) -> "_Watch":
        return self  # the host deep-copies model options, and what was seen is to be found here

    @uncompiled
    def _first(self, n: Tensor, context: Tensor, value: Tensor, extra: dict):
        if self._context is not context:
            self._context, self._columns = context, match(plain(context), self.rows.to(context)).float() @ self.groups.to(context.device)
        return n, context, value

    @uncompiled
    def _last(self, n: Tensor, context: Tensor, value: Tensor, extra: dict):
        block = extra["block"]
        found = self.blocks.get((block[0], block[1], extra.get("block_index", 0)))
        held = self._columns.flatten(1).any(1)
        if found is not None and held.any():
            attention, scale = found
            shares = attention_columns(attention.to_q(n), attention.to_k(context), extra["n_heads"], self._columns)[held]
            grid = grid_size(extra["original_shape"][-2:], scale)
            maps = shares.mean(0).T.unflatten(1, grid)[None]
            self.pictures.append(torch.nn.functional.interpolate(maps, size=self.size, mode="bilinear", align_corners=False)[0])
        return n, context, value

    _last.sees_all = True  # behind everybody who changes what keys and values read
