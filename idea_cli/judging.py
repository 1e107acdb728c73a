"""Who judges: recognizers that took no part in the training, and CLIP for the prompt."""
from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from idea_engine.errors import EvaluationError, FaceNotFoundError
from idea_engine.faces.embed import embed_faces


class Judge(Protocol):
    """A scoring recognizer. ``recognizer`` names it; embeddings of two recognizers cannot be compared."""

    recognizer: str

    def measure(self, photo: Tensor) -> Tensor | None:
        """(H, W, 3) in 0..1 → (d,) of unit length, or None where no face is found."""


class PackJudge:
    """The recognizer of a face pack, on its largest face."""

    def __init__(self, encoder):
        self._encoder, self.recognizer = encoder, encoder.recognizer

    def measure(self, photo: Tensor) -> Tensor | None:
        try:
            return embed_faces(self._encoder, [photo]).mean()
        except FaceNotFoundError:
            return None


class PromptJudge:
    """CLIP's image-text cosine, from a local folder in transformers' layout."""

    def __init__(self, folder: str):
        """Raises: EvaluationError: the folder holds no CLIP."""
        from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

        try:
            self._model = CLIPModel.from_pretrained(folder, local_files_only=True).train(False)
            self._pictures = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
            self._words = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, TypeError) as error:
            raise EvaluationError(
                f"{folder} holds no CLIP ({str(error).splitlines()[0][:160]}). Give --clip a folder in transformers' layout, such as a copy of clip-vit-base-patch32."
            ) from error

    @torch.no_grad()
    def score(self, photo: Tensor, text: str) -> float:
        """Cosine of a picture (H, W, 3) in 0..1 and a text."""
        pixels = self._pictures(images=(photo * 255).round().to(torch.uint8).numpy(), return_tensors="pt").pixel_values
        words = self._words([text], padding=True, truncation=True, return_tensors="pt")
        out = self._model(pixel_values=pixels, **words)
        return float((out.image_embeds * out.text_embeds).sum())
