"""The few calls the training loop needs from a diffusion model; one implementation per host.

A backend owns the models, their devices and their quirks. The engine owns everything that is learned.
"""
from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Mapping, Protocol, Sequence

import torch
from torch import Tensor

from .attention_maps import AttentionMaps
from .family import ModelFamily


@dataclass(frozen=True)
class Prompt:
    """One tokenized prompt with a place kept for the identity.

    Attributes:
        ids: encoder key → (L,) int64 token ids, begin and end marks and padding included; any id stands at the kept places.
        positions: the n places (indices into L) of the pseudo-tokens, the same for every encoder.
        end: index of the first end-of-text mark, where pooled features are read.
    """

    ids: Mapping[str, Tensor]
    positions: tuple[int, ...]
    end: int


@dataclass(frozen=True)
class TextCondition:
    """What cross-attention reads.

    Attributes:
        context: (B, L, d).
        pooled: (B, w of the pooled encoder) for families that use it (SDXL), else None.
    """

    context: Tensor
    pooled: Tensor | None = None

    def rows(self, index: Sequence[int]) -> "TextCondition":
        """The prompts at ``index``, repeated as asked."""
        picked = torch.as_tensor(list(index), device=self.context.device)
        pooled = None if self.pooled is None else self.pooled.index_select(0, picked)
        return TextCondition(self.context.index_select(0, picked), pooled)


@dataclass(frozen=True)
class CrossAttentionEdit:
    """What an identity changes inside the UNet's cross-attention; an empty edit changes nothing.

    Blocks are numbered in the order in which the UNet runs them.

    Attributes:
        positions: (B, n) int64: where the identity's tokens stand in each prompt of the batch.
        key_rows, value_rows: (B, n, d): stand at ``positions`` in place of the text condition, as ``to_k`` / ``to_v`` of every block read it.
        key_offsets, value_offsets: (M, n, d) for M blocks: added to the context at ``positions`` before ``to_k`` / ``to_v``.
        key_weights, value_weights: block number → (c, d): added to the projections' weights, at every position.
        maps: attention maps to gather on the way; None gathers nothing and costs nothing.
        learns_from: the first block that passes a gradient to what it reads; the blocks before it read the same. Nothing of the network
            before that block is then kept, or run backwards.
    """

    positions: Tensor | None = None
    key_offsets: Tensor | None = None
    value_offsets: Tensor | None = None
    key_weights: Mapping[int, Tensor] | None = None
    value_weights: Mapping[int, Tensor] | None = None
    key_rows: Tensor | None = None
    value_rows: Tensor | None = None
    maps: AttentionMaps | None = None
    learns_from: int = 0

    def contexts(self, block: int, context: Tensor) -> tuple[Tensor, Tensor]:
        """The context (B, L, d) as the keys and as the values of one block read it."""
        if block >= self.learns_from:
            return self._contexts(block, context)
        with torch.no_grad():
            keys, values = self._contexts(block, context)
        return keys.detach(), values.detach()  # unchanged, they would be the context itself

    def _contexts(self, block: int, context: Tensor) -> tuple[Tensor, Tensor]:
        keys = values = context
        if self.key_rows is not None:
            keys, values = (put_at(context, self.positions, rows) for rows in (self.key_rows, self.value_rows))
        if self.key_offsets is not None:
            keys, values = add_at(keys, self.positions, self.key_offsets[block]), add_at(values, self.positions, self.value_offsets[block])
        return keys, values


def add_at(context: Tensor, positions: Tensor, rows: Tensor) -> Tensor:
    """A copy of ``context`` (B, L, d) with ``rows`` (n, d) added at ``positions`` (B, n)."""
    index = positions.to(context.device)[:, :, None].expand(-1, -1, context.shape[-1])
    return context.scatter_add(1, index, rows.to(context).expand(context.shape[0], -1, -1))


def put_at(context: Tensor, positions: Tensor, rows: Tensor) -> Tensor:
    """A copy of ``context`` (B, L, d) with ``rows`` (B, n, d) at ``positions`` (B, n)."""
    index = positions.to(context.device)[:, :, None].expand(-1, -1, context.shape[-1])
    return context.scatter(1, index, rows.to(context))


@dataclass(frozen=True)
class Prediction:
    """The network's answer for one noisy batch, in the model's own parametrization (ε or v).

    Attributes:
        output: (B, C, h, w) float32, differentiable.
        target: (B, C, h, w) float32, what it should have been.
        denoised: (B, C, h, w) float32: the clean latent the answer implies, in the scale of ``encode_images``; for previews.
        snr: (B,) float32, the signal-to-noise ratio at each picture's timestep.
        velocity: whether the parametrization is v.
    """

    output: Tensor
    target: Tensor
    denoised: Tensor
    snr: Tensor
    velocity: bool


class DiffusionBackend(Protocol):
    """One diffusion model as the engine sees it. Tensors given and returned live on ``device``."""

    family: ModelFamily
    device: torch.device
    block_widths: tuple[int, ...]  # c of every cross-attention block, in the order in which they run
    block_scales: tuple[int, ...]  # how many times coarser than the latent each block's grid is: 1, 2, 4, 8
    encoder_blocks: int  # how many of the blocks belong to the UNet's encoder, its down blocks; the middle and the decoder follow
    text_hash: str  # content hash of the text encoder: anchors and tokens are valid for this one
    timesteps: int  # length of the noise schedule, 1000 for every family here

    def word_ids(self, text: str) -> list[int]:
        """Byte-pair token ids of plain text, without begin or end marks. The encoders of one family share the vocabulary."""

    def tokenize(self, before: str, after: str, count: int) -> Prompt:
        """The prompt ``before`` + ``count`` kept places + ``after``, in one chunk of 77; with ``count`` 0 it is a plain prompt."""

    def token_rows(self, encoder: str, ids: Tensor) -> Tensor:
        """(k,) ids → (k, w) float32 input embeddings."""

    def encode_text(self, inputs: Mapping[str, Tensor], ends: Sequence[int]) -> TextCondition:
        """Input embeddings, encoder key → (B, L, w), through the whole text encoder; differentiable inside :meth:`training`."""

    def encode_images(self, images: Tensor) -> Tensor:
        """(B, H, W, 3) in 0..1 → (B, C, h, w) latents in the denoiser's scale. No gradient."""

    def decode_latents(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) latents in the denoiser's scale → (B, H, W, 3) float32 in 0..1 on the CPU. No gradient; not inside :meth:`training`."""

    def predict(self, latents: Tensor, noise: Tensor, timesteps: Tensor, condition: TextCondition, edit: CrossAttentionEdit) -> Prediction:
        """Noise the latents to ``timesteps`` (B,), ask the network once. Differentiable inside :meth:`training`."""

    def training(self, checkpointing: bool = False) -> AbstractContextManager[None]:
        """While open, gradients flow through the frozen models; afterwards they are bit for bit what they were.

        Args:
            checkpointing: recompute activations in the backward pass: slower, far less memory.
        """

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether ``error`` means that the device has no memory left."""

    def release_memory(self) -> None:
        """Give back what can be given back after an out-of-memory error."""
