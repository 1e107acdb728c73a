"""The joint encoder: faces and prompts → the condition that SDXL's UNet reads in place of its text encoders' (METHODS §3)."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import BadImageError
from ..prompts.clip_tokenizer import END, START, encode
from .config import FaceCLIPConfig
from .face_tower import FaceTower
from .fuser import Fuser
from .prompt import Words, chunks
from .text_tower import TextTransformer, word_mask

_ROUNDING = 0.01  # how far a resampled face may lie outside of 0..1


@dataclass(frozen=True)
class SeenFaces:
    """Faces as one joint encoder sees them.

    Attributes:
        classes: (F, 512) unit-length class tokens.
        patches: (F, grid², face_width) patch tokens.
    """

    classes: Tensor
    patches: Tensor

    def blend(self, weights: Sequence[float]) -> "SeenFaces":
        """One face that lies between: the weighted mean of the class tokens, made unit length again, and of the patch tokens.

        Args:
            weights: one per face, positive in sum.

        Raises:
            ValueError: another number of weights than of faces, or no positive sum.
        """
        shares = torch.tensor(list(weights), device=self.classes.device, dtype=torch.float32)
        if len(shares) != len(self.classes) or not shares.sum() > 0:
            raise ValueError(f"Blending {len(self.classes)} faces needs as many weights, positive in sum, not {list(weights)}.")
        shares = shares / shares.sum()
        mean = lambda tokens: torch.tensordot(shares, tokens.float(), 1)[None].to(tokens.dtype)
        return SeenFaces(F.normalize(mean(self.classes), dim=-1), mean(self.patches))


class JointEncoder(nn.Module):
    """One size of FaceCLIP, in the published names of its weights."""

    def __init__(self, config: FaceCLIPConfig):
        super().__init__()
        width, face = config.text_width, config.face_width
        self.config = config
        self.positional_embedding = nn.Parameter(torch.randn(config.length, width) * 0.01)
        self.text_projection = nn.Parameter(torch.randn(width, width) * width ** -0.5)  # towards pictures; SDXL reads what is before it
        self.logit_scale, self.logit_bias = nn.Parameter(torch.tensor(2.66)), nn.Parameter(torch.tensor(-10.0))  # of the alignment
        self.transformer = TextTransformer(width, config.text_layers, config.text_heads, config.text_inner, config.activation)
        self.token_embedding = nn.Embedding(config.vocabulary, width)
        self.ln_final = nn.LayerNorm(width)
        self.face_encoder = FaceTower(config)
        self.proj1 = nn.Linear(config.face_classes, width)
        self.face_patch_proj, self.face_pos_proj = nn.Linear(face, width), nn.Linear(face, width)
        self.text_embed_proj, self.text_pos_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.fuser = Fuser(config)

    def see(self, faces: Tensor) -> SeenFaces:
        """(F, 3, H, W) RGB in 0..1 → what the face tower makes of them."""
        classes, patches = self.face_encoder(faces.to(self.positional_embedding))
        return SeenFaces(F.normalize(classes.float(), dim=-1).to(classes.dtype), patches)

    def read(self, ids: Tensor, face: SeenFaces | None = None, face_at: int | None = None) -> tuple[Tensor, Tensor]:
        """(B, L) token ids, and a face per row for the position ``face_at`` → (B, L, d) after the final norm, (B, d) at the end token."""
        embedded = self.token_embedding(ids)
        if face is not None and face_at is not None:
            at = torch.arange(ids.shape[1], device=ids.device).eq(face_at)[None, :, None]
            embedded = torch.where(at, self.proj1(face.classes)[:, None], embedded)
        text = self.ln_final(self.transformer(embedded + self.positional_embedding[:ids.shape[1]]))
        ends = ids.eq(END).int().argmax(1)  # the first, where the end token also pads
        return text, text[torch.arange(len(ids), device=ids.device), ends]

    def forward(self, ids: Tensor, face: SeenFaces, face_at: int | None) -> tuple[Tensor, Tensor]:
        """(B, L) token ids and one face per row → (B, L, d) fused rows, (B, d) pooled text.

        Args:
            face_at: where the face's class token stands; None for prompts without a face, whose patches are those of a black picture.
        """
        text, pooled = self.read(ids, face, face_at)
        mask = word_mask(ids, START, END, self.config.pad) if self.config.block_mask else None
        fused = self.fuser(
            self.text_embed_proj(text), self.text_pos_proj(self.positional_embedding)[None],
            self.face_patch_proj(face.patches), self.face_pos_proj(self.face_encoder.pos_embed), mask,
        )
        return fused, pooled


class FaceCLIPEncoder(nn.Module):
    """All joint encoders of a checkpoint: for SDXL, L/14 and bigG/14."""

    def __init__(self, configs: Mapping[str, FaceCLIPConfig], words: Words | None = None):
        """
        Args:
            configs: encoder key (``face_clip_l``, ``face_clip_g``) → its size, in the order in which outputs are joined.
            words: text → CLIP token ids; None = CLIP's own, which this package ships.
        """
        super().__init__()
        self.words = words or encode
        self.configs = dict(configs)
        for key, config in configs.items():
            self.add_module(key, JointEncoder(config))

    @property
    def parts(self) -> list[JointEncoder]:
        """The joint encoders in order."""
        return [getattr(self, key) for key in self.configs]

    @property
    def width(self) -> int:
        """d: 2048 for SDXL."""
        return sum(config.text_width for config in self.configs.values())

    def encode(self, faces: Tensor | None, prompts: str | Sequence[str], blend: Sequence[float] | None = None) -> tuple[Tensor, Tensor]:
        """Faces and prompts → the condition.

        Args:
            faces: (B, 3, H, W) aligned faces, RGB in 0..1, one per prompt or one for all; None = no face.
            prompts: B prompts, or one (a string will do) for all faces; weights as (word:1.2). Longer ones than 77 tokens take several chunks.
            blend: a weight per face: all faces become one person, and every prompt is about that person.

        Returns:
            (B, 77 · chunks, d) float32 fused rows, joined over the encoders, and (B, d_last) float32: the last encoder's text at the end
            of the first chunk, before ``text_projection`` (what SDXL knows as pooled).

        Raises:
            BadImageError: the faces have another shape or range, or are not finite.
            ValueError: faces and prompts are neither of one number nor one of them single.
        """
        if faces is not None:
            _check_faces(faces)
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        outputs = [self._encode_one(part, faces, prompts, blend) for part in self.parts]
        return torch.cat([fused for fused, _ in outputs], -1), outputs[-1][1]

    def _encode_one(self, part: JointEncoder, faces: Tensor | None, prompts: list[str], blend) -> tuple[Tensor, Tensor]:
        device, side = part.positional_embedding.device, part.config.face_side
        pixels = torch.zeros(1, 3, side, side) if faces is None else faces
        seen = part.see(pixels.to(device))
        if faces is not None and blend is not None:
            seen = seen.blend(blend)
        count = max(len(prompts), len(seen.classes))
        if {len(prompts), len(seen.classes)} - {1, count}:
            raise ValueError(f"{len(seen.classes)} faces and {len(prompts)} prompts cannot be paired: give as many, or one of either.")
        made = chunks(prompts, self.words, part.config, faces is not None)
        ids, weights = (x.expand(count, *x.shape[1:]).to(device) for x in (made.ids, made.weights))
        per_chunk = lambda x: x.expand(count, *x.shape[1:]).repeat_interleave(ids.shape[1], 0)
        face = SeenFaces(per_chunk(seen.classes), per_chunk(seen.patches))
        fused, pooled = part(ids.flatten(0, 1), face, made.face_at)
        fused, pooled = fused.float().unflatten(0, (count, -1)), pooled.float().unflatten(0, (count, -1))[:, 0]
        if (weights != 1).any():
            # a weight moves a row away from what it would be without any words, and with the same face: it exaggerates the word, not the face
            blank = chunks([""], self.words, part.config, faces is not None).ids[:, 0].to(device)
            plain, _ = part(blank.expand(len(seen.classes), -1), seen, made.face_at)
            plain = plain.float().expand(count, -1, -1)[:, None]
            fused = torch.where((weights != 1)[..., None], plain + (fused - plain) * weights[..., None], fused)
        return fused.flatten(1, 2), pooled


def _check_faces(faces: Tensor) -> None:
    if faces.ndim != 4 or faces.shape[1] != 3 or 0 in faces.shape or not faces.is_floating_point():
        raise BadImageError(
            f"FaceCLIP got faces of the shape {tuple(faces.shape)} and the kind {faces.dtype}, expected (B, 3, H, W) floating numbers in 0..1."
        )
    low, high = (float(value) for value in faces.aminmax())
    if not (-_ROUNDING <= low and high <= 1 + _ROUNDING):  # also where they are not numbers
        raise BadImageError(f"FaceCLIP got faces with values from {low:.4g} to {high:.4g}, expected 0..1: black is 0, white is 1.")
