"""The nouns that cross module boundaries.

Legend of dimension letters used in every docstring of the project:

    B  batch of prompts or pictures     L  positions of a text condition (77 per chunk)
    F  faces                            n  pseudo-tokens of one identity (2)
    w  width of one text encoder        d  width of the text condition (sum of the encoders' widths)
    C  channels of a latent (4)         c  inner channels of one cross-attention block
"""
from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Mapping

import torch
from torch import Tensor

FACE_EMBEDDING_WIDTH = 512  # ArcFace family, METHODS §1.1


@dataclass(frozen=True)
class FaceEmbedding:
    """The faces of one person, one row per photograph in which the person was found.

    Attributes:
        vectors: (F, 512) float32, each row of unit length: the recognizer's normalised output.
        weights: (F,) float32 > 0, detection quality; the weights of the average.
        boxes: (F, 4) float32, x1 y1 x2 y2 in pixels of the source photograph.
        landmarks: (F, 5, 2) float32, left eye, right eye, nose, left and right mouth corner, in pixels.
        crops: (F, 112, 112, 3) float32 in 0..1, RGB, aligned to the ArcFace template.
        masks: one (H, W) float32 0..1 mask per face, at the size of its photograph.
        image_index: which picture of the input batch each face came from.
        recognizer: name and content hash of the recognizer; embeddings of two recognizers cannot be compared.
        licence: the licence of the face pack, in words.
        photographs: one :func:`~idea_engine.training.pictures.photo_key` per face: which photograph its mask belongs to.
        heads: (F, 64, 64, 3) float32 in 0..1, RGB: each head with its hair, see :mod:`idea_engine.faces.head`; None where it was not cut out.
    """

    vectors: Tensor
    weights: Tensor
    boxes: Tensor
    landmarks: Tensor
    crops: Tensor
    masks: tuple[Tensor, ...]
    image_index: tuple[int, ...]
    recognizer: str = ""
    licence: str = ""
    photographs: tuple[str, ...] = ()
    heads: Tensor | None = None

    def mean(self) -> Tensor:
        """The person: (512,) unit-length average of the rows, weighted by detection quality."""
        total = (self.vectors * self.weights[:, None]).sum(0)
        return torch.nn.functional.normalize(total, dim=0)

    def __len__(self) -> int:
        return self.vectors.shape[0]


@dataclass(frozen=True)
class ModelFamily:
    """What an identity must agree with: the text encoders and what the denoiser reads and predicts.

    Attributes:
        name: ``sd1``, ``sd2`` or ``sdxl``, as seen from the encoders and the denoiser, never from a file name.
        encoders: encoder key (``clip_l``, ``clip_g``, ``clip_h``) → width w, in the order in which their outputs are joined.
    """

    name: str
    encoders: Mapping[str, int]

    @property
    def context_width(self) -> int:
        """d: the width of the text condition that cross-attention reads."""
        return sum(self.encoders.values())

    def split(self, joined: Tensor) -> dict[str, Tensor]:
        """(…, d) → encoder key → (…, w)."""
        return dict(zip(self.encoders, joined.split(tuple(self.encoders.values()), dim=-1)))

    def join(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Encoder key → (…, w), joined to (…, d)."""
        return torch.cat([parts[key] for key in self.encoders], dim=-1)

    def describe(self) -> str:
        """'SDXL (clip_l 768 + clip_g 1280)', for messages."""
        title = {"sd1": "Stable Diffusion 1.x", "sd2": "Stable Diffusion 2.x", "sdxl": "SDXL"}[self.name]
        return f"{title} ({' + '.join(f'{key} {width}' for key, width in self.encoders.items())})"


@dataclass(frozen=True)
class IDAnchor:
    """The textual ID anchor: where an average name lands in the output space of the text encoder (METHODS §1.2).

    Attributes:
        rows: encoder key → (n, w) float32: outputs of the whole encoder at the name's positions.
        inputs: encoder key → (n, w) float32: the averaged input embeddings that were encoded.
        names_used: how many names entered the average at each of the n positions.
        start: encoder key → (n, w) float32, where a recipe's tokens begin if not at ``rows``; empty otherwise.
        spread: encoder key → (k, w) float32 with ``spreadᵀ·spread`` the covariance of the single names' rows; empty unless asked for.
    """

    rows: Mapping[str, Tensor]
    inputs: Mapping[str, Tensor]
    names_used: tuple[int, ...]
    start: Mapping[str, Tensor] = field(default_factory=dict)
    spread: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class EnhancedIdentity:
    """A face beside its textual anchor: all that training starts from, and usable as the untrained identity.

    Attributes:
        family: the model family whose text encoder made the anchor.
        face: (512,) float32 unit length, or None for methods that need no face recognizer.
        anchor: see :class:`IDAnchor`.
        seed: seeds the random weights of the enhancer, so that the same graph gives the same start.
        recognizer, licence: carried from the face embedding into the identity file.
        masks: face masks of the photographs, for losses that look at the face only.
        photographs: the :func:`~idea_engine.training.pictures.photo_key` of each mask's photograph.
        identity: the person at once, as an enhancer learned from many people reads the photographs; None without one. Recipes that know how
            begin there, and nothing needs to be trained to draw it.
    """

    family: ModelFamily
    face: Tensor | None
    anchor: IDAnchor
    seed: int = 0
    recognizer: str = ""
    licence: str = ""
    masks: tuple[Tensor, ...] = ()
    photographs: tuple[str, ...] = ()
    identity: "Identity | None" = None


@dataclass(frozen=True)
class IdentityMetadata:
    """What a file says of itself; every value ends up as a string in the safetensors header.

    Attributes:
        trigger: the placeholder in prompts, e.g. ``<anna>``.
        method: the recipe that made it (``untrained``, ``released``, ``paper``, ``fast``, ``sefi``, ``imported``).
        family: name of the model family.
        base_hash: content hash of the text encoder it was trained with, '' when unknown.
        recognizer, licence: of the face pack; '' when no face pack was used.
        config: the training configuration as plain JSON values.
        consent: a free note by the maker.
        thumbnail: a small picture as a ``data:`` URL, '' when there is none.
    """

    trigger: str
    method: str
    family: str
    base_hash: str = ""
    recognizer: str = ""
    licence: str = ""
    config: Mapping[str, object] = field(default_factory=dict)
    consent: str = ""
    thumbnail: str = ""


@dataclass(frozen=True)
class AdapterWeights:
    """The ID-adapter as it is used: METHODS §1.4 with the person's own features already projected.

    Attributes:
        features: (n, d): ``f = Linear(2d→d)(F)``, the enhanced identity as extra positions of the text condition. A merged identity stacks k
            adapters whose residuals are summed: (k, n, d).
        attention: state dict of the self-attention (``in_proj_weight`` (3d, d), …), each with k in front where stacked.
        gate: scalar β·tanh(γ).
        scope: ``prompt``: every position of the text condition changes (the paper); ``tokens``: only the identity's own.
    """

    features: Tensor
    attention: Mapping[str, Tensor]
    gate: float
    scope: str

    def parts(self) -> list[tuple[Tensor, dict[str, Tensor]]]:
        """The features (n, d) and the attention of each stacked adapter."""
        if self.features.ndim == 2:
            return [(self.features, dict(self.attention))]
        return [(rows, {name: tensor[i] for name, tensor in self.attention.items()}) for i, rows in enumerate(self.features)]


@dataclass(frozen=True)
class StageTokens:
    """An identity during one stretch of the noise schedule (SeFi-IDE, METHODS §2).

    Attributes:
        key, value: encoder key → (n, w) float32: the pseudo-tokens as the keys and as the values of cross-attention read them, each
            encoded in its prompt like ordinary pseudo-tokens.
    """

    key: Mapping[str, Tensor]
    value: Mapping[str, Tensor]


@dataclass(frozen=True)
class Identity:
    """One person, learned: everything ApplyIDAdapter needs, on the CPU.

    Attributes:
        family: the model family it belongs to.
        tokens: encoder key → (n, w) float32 pseudo-token embeddings, fed to the text encoder in place of words.
        anchor: encoder key → (n, w) float32, where training started; strength fades the tokens towards it. May be empty.
        adapter: the adapter on the text condition, or None.
        ending: (d,) float32: what is added to the text condition from the end mark on, in the chunk in which the person is mentioned, or None.
            CLIP's encoders are causal: the end mark and the padding have read the whole prompt, and hold more of a person than the person's
            own words do.
        key_offsets, value_offsets: cross-attention block number → (n, d): what is added to the text condition at the identity's own
            positions before the block's key / value projection. Blocks are numbered in the order in which the UNet runs them.
        key_weights, value_weights: block number → (c, d): global change of the projections (recipe ``paper`` only).
        metadata: see :class:`IdentityMetadata`.
        face: (512,) or None; biometric, stored only when the user asks.
        stages: the noise schedule in equal stretches, the least noisy first (see :func:`~idea_engine.backends.noise_stages.stage_of`), each with pseudo-tokens
            of its own; ``tokens`` is then their best single approximation. Empty for identities that are the same at every noise level.
    """

    family: ModelFamily
    tokens: Mapping[str, Tensor]
    metadata: IdentityMetadata
    anchor: Mapping[str, Tensor] = field(default_factory=dict)
    adapter: AdapterWeights | None = None
    ending: Tensor | None = None
    key_offsets: Mapping[int, Tensor] = field(default_factory=dict)
    value_offsets: Mapping[int, Tensor] = field(default_factory=dict)
    key_weights: Mapping[int, Tensor] = field(default_factory=dict)
    value_weights: Mapping[int, Tensor] = field(default_factory=dict)
    face: Tensor | None = None
    stages: tuple[StageTokens, ...] = ()

    @property
    def token_count(self) -> int:
        """n: how many pseudo-tokens stand for the person."""
        return next(iter(self.tokens.values())).shape[0]

    @property
    def trigger(self) -> str:
        return self.metadata.trigger

    def with_trigger(self, trigger: str) -> "Identity":
        """The same person under another placeholder."""
        return replace(self, metadata=replace(self.metadata, trigger=trigger))
