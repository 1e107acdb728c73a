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

from torch import Tensor

from ..backends.family import ModelFamily


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
